"""A copy of the project with the science stubbed, for tests of what Snakemake runs, and what is asked of it there."""

import compileall
import os
import py_compile
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from tempfile import NamedTemporaryFile

import forked
import yaml
from conftest import copy_project

# Stand-ins for the modules that need torch, the network or time. `prompting` and `probe` complete packs through the
# real ledger and tell in trained.log which runs they trained.
STUBS = {
    "torch.py": """
        class Tensor: pass
        class cuda:
            def is_available(): return False
        def device(name): return name
        def set_num_threads(number): pass
        def tensor(values): return values
    """,
    "torchvision.py": """
        class models:
            def list_models(module): return []
        class datasets:
            def SVHN(folder, download, split):
                raise RuntimeError("what stands for its files is none of them")
    """,
    "hiddencost/fetch.py": """
        from pathlib import Path
        from hiddencost.files import sha256_file
        def fetch_all(name, files, folder, lock, offline, root):
            if offline or Path(f"{name}.dead").exists():
                return {"failed": f"no source gave {name}", "files": {}}
            found = {}
            for key, file in files.items():
                (source, *_) = file.sources
                path = root / source.path if source.path else Path(folder, file.name)
                if not source.path:
                    path.write_text(file.sha256 or file.name)
                elif file.own_paths:
                    path = Path(folder, file.name)
                    path.write_bytes(Path(source.path).read_bytes())
                found[key] = {"path": str(path), "sha256": sha256_file(path), "source": str(source)}
            return {"failed": None, "files": found}
    """,
    "hiddencost/networks/backbones.py": """
        from pathlib import Path
        from hiddencost.files import sha256_file, write_json
        def save(folder, weights, manifest):
            for name in ("weights", "masks"):
                path = Path(folder, f"{name}.safetensors")
                path.write_text(weights)
                manifest = manifest | {f"{name}_sha256": sha256_file(path)}
            write_json(Path(folder, "manifest.json"), manifest)
    """,
    "hiddencost/networks/checkpoint.py": """
        from hiddencost.networks.backbones import save
        from hiddencost.files import read_json
        def import_checkpoint(name, layout, fetched, folder):
            report = read_json(fetched)
            preprocessing = layout.preprocessing.model_dump(exclude_none=True)
            manifest = {"checkpoint": name, "architecture": "net", "preprocessing": preprocessing}
            manifest |= {"failed": report["failed"]} if report["failed"] else {}
            save(folder, str(report["files"]), manifest)
    """,
    "hiddencost/networks/arithmetic.py": """
        def count_multiply_adds(architecture, side=224): return 0.1, 1000
    """,
    "hiddencost/networks/look.py": """
        from hiddencost.messages import Record
        class Found(Record):
            stem: str | None
            sparsity: float
            is_pruned: bool
        def look(file, architecture):
            return Found(stem=None, sparsity=0.3, is_pruned=True)
    """,
    "hiddencost/networks/inputs.py": """
        def outputs(network, family, side): pass
        def why_not(architecture, side): pass
        def why_not_published(architecture, side): pass
    """,
    "hiddencost/networks/heads.py": """
        def heads(architecture, side): return 1
    """,
    "hiddencost/compression/make.py": """
        from pathlib import Path
        from hiddencost.networks.backbones import save
        from hiddencost.files import read_json
        def compress(source, folder, compression, control, images):
            more = {"compression": (compression or {}).get("algorithm", "none"), "control": control}
            more["sparsity_declared"] = (compression or {}).get("sparsity", 0.0)
            manifest = read_json(Path(source, "manifest.json"))
            save(folder, f"{manifest['weights_sha256']} {compression} {control}", manifest | more)
    """,
    "hiddencost/compression/photos.py": """
        def imagenet_photos(path, entry, least, dense):
            pass
    """,
    "hiddencost/compression/gate.py": """
        from pathlib import Path
        from hiddencost.compression.verification import VerificationReport
        from hiddencost.files import read_json
        def failed(folder, reason):
            return VerificationReport(passed=False, reasons=[reason], sparsity_declared=None, sparsity_measured=None)
        def verify(folder, settings, recognise, masked=None):
            manifest = read_json(Path(folder, "manifest.json"))
            sparsity = manifest["sparsity_declared"]
            reasons = ["5 of 20 photos"] if sparsity > 0.4 else []
            reasons += [manifest["failed"]] if "failed" in manifest else []
            measured = {"sparsity_declared": sparsity, "sparsity_measured": sparsity}
            return VerificationReport(passed=not reasons, reasons=reasons, **measured)
    """,
    "hiddencost/figures/draw.py": """
        from pathlib import Path
        from hiddencost.figures.style import look
        def draw(figure, files, settings, outputs):
            for output in outputs:
                Path(output).write_text(f"{look} {' '.join(figure.backbones)}")
    """,
    "hiddencost/figures/style.py": """
        look = {"font.size": 8}
    """,
    "hiddencost/results/learned.py": """
        from pathlib import Path
        def write(runs, settings, paths):
            for path in paths.values():
                Path(path).write_text("learned")
    """,
    "hiddencost/results/matched.py": """
        from pathlib import Path
        def write(runs, upstream, path):
            Path(path).write_text("matched")
    """,
    "hiddencost/upstream/check.py": """
        def arithmetic(architecture, size, recipe):
            return 0.1, 1000
    """,
    "hiddencost/upstream/gate.py": """
        def recognised(network, manifest, least): pass
        def masked_keys(network, manifest): pass
    """,
    "hiddencost/upstream/launch.py": """
        from pathlib import Path
        from hiddencost.networks.backbones import save
        from hiddencost.files import canonical, sha256_text
        def run(what, job, leased, jobs_per_gpu, threads, workers):
            with open("upstream.log", "a") as log:
                print(job["output"].partition("/upstream/")[2], file=log)
            if what == "rewind_point":
                Path(job["output"]).write_text(f"state of epoch {job['until']}")
                return
            manifest = {"checkpoint": job["checkpoint"], "architecture": "net:10", "classes": list("abcdefghij")}
            manifest |= {"preprocessing": {"mean": [0, 0, 0], "std": [1, 1, 1], "interpolation": "bilinear"}}
            save(job["output"], sha256_text(canonical([job["sparsify"], job["recipe"], job["seed"]])), manifest)
    """,
    "hiddencost/results/typeset.py": """
        from pathlib import Path
        def write(runs, paths):
            for path in paths:
                Path(path).write_text("set")
    """,
    "hiddencost/results/verdicts.py": """
        import csv
        from hiddencost.results.claims import Claim
        def write(runs, claims, path, paper, own, made, analysed):
            stated = [{"claim": name} | Claim.model_validate(one).stated for name, one in claims.items()]
            with open(path, "w", encoding="utf-8", newline="") as opened:
                table = csv.DictWriter(opened, [*stated[0], "verdict"])
                table.writeheader()
                table.writerows(one | {"verdict": "supported"} for one in stated)
        def count(verdicts):
            return f"{len(verdicts)} supported"
    """,
    "hiddencost/report/page.py": """
        import json
        def write(output, tables, settings, root):
            page = (root / "workflow/report/report.html.j2").stat().st_size
            output.write_text(json.dumps({"tables": tables, "settings": settings, "page": page}))
    """,
    "hiddencost/runs/features.py": """
        from pathlib import Path
        def extract_features(folder, verification, dataset_folder, output, device):
            Path(output).write_text("features")
    """,
    "hiddencost/prompting/engine.py": '''
        """The training code."""
        def update(prompt):
            """Update."""
            return prompt + 1  # step
    ''',
    "hiddencost/stub.py": """
        import time
        from pathlib import Path
        from hiddencost.runs.pack import TrainedRun, complete
        class Logits(float):  # what a network says: its accuracy
            def isfinite(self):
                return self
            def all(self):
                return True
        class Job:
            def __init__(self, request, value):
                self.request, self.value = request, value
            def train(self, dataset, runs):
                request = self.request
                for run, (method, chosen, _) in runs.items():
                    with open("trained.log", "a") as log:
                        print(request.backbone, request.seed, method, len(chosen) // 10, file=log, flush=True)
                    while method == "flm" and Path("slow").exists():
                        time.sleep(0.1)
                    yield TrainedRun(run, {}, {"train_seconds": 1.0}, Logits(self.value))
            def predict(self, dataset, runs, learned):
                for run, _ in learned:
                    yield run, Logits(self.value)
        def run(inputs, request, output, value):
            complete(inputs, request, output, Job(request, value))
    """,
    "hiddencost/runs/prompting.py": """
        from hiddencost.prompting.engine import update
        from hiddencost.stub import run
        def train_pack(inputs, request, plans, output, device, memory, texts, names):
            run(inputs, request, output, 0.1 * update(1))
    """,
    "hiddencost/runs/finetune.py": """
        from hiddencost.stub import run
        def finetune_pack(inputs, request, output, device):
            run(inputs, request, output, 0.9)
    """,
    "hiddencost/runs/probe.py": """
        from hiddencost.stub import run
        def probe_pack(inputs, features, request, output, texts):
            run(inputs, request, output, 0.7)
    """,
}
# the real registry of metrics, which score a network by what it says: its accuracy
SCORES = """

def evaluate(logits, labels, test_batch_size):
    scores = dict.fromkeys(METRICS, 0.1) | {"accuracy": float(logits)}
    return scores | {"bin_count": [5], "bin_confidence": [0.5], "bin_accuracy": [0.4]}
"""
# a job each: a kind of each table that figures are drawn from, and of each condition that a kind has
KINDS = ["accuracy", "movement", "prompts", "glance"]
# with all that Snakemake says, of which the helpers below read which jobs ran
LOCALLY = ["--quiet", "host", "--cores", "2", "--scheduler", "greedy"]
CONFIG = {
    "study": "small",
    "seeds": [0],
    "shots": [1, 2],
    "methods": ["rlm", "flm", "lp"],
    "backbones": [
        {"name": "dense", "checkpoint": "mobilenetv2"},
        {"name": "pruned", "checkpoint": "mobilenetv2", "compression": {"algorithm": "magnitude", "sparsity": 0.2}},
    ],
}
UPSTREAM = {
    **{"name": "own", "architecture": "resnet20_cifar", "dataset": "cifar10-part", "image_size": 32},
    "recipe": {
        **{"epochs": 400, "batch_size": 50, "learning_rate": 0.1, "weight_decay": 0.0},
        **{"crop": "padded", "precision": "fp32"},
    },
}
RESULTS = {
    **{"collect": 1, "claims": 1, "tables": 1, "learned": 1, "matched": 1, "figure": 3, "report": 1, "conclude": 1}
}
TRAINING = {"train": 2, **RESULTS}
RANDOM = {"name": "random", "checkpoint": "mobilenetv2", "control": "random_init"}
NEW_SEED = {"draw_splits": 1, "probe": 2, **TRAINING}
NEW_BACKBONE = {"compress": 1, "verify_backbone": 1, "extract_features": 1, "train": 1, "probe": 1, **RESULTS}
WHOLE_BRANCH = {
    **{"fetch_checkpoint": 1, "import_checkpoint": 1, "compress": 2, "verify_backbone": 2, "extract_features": 2},
    **{"probe": 2, **TRAINING},
}


def make_finished_project(project: Path) -> None:
    """Copy the project into a folder, with the stubs, and run its study to the end."""
    project.mkdir()
    copy_project(project)
    for name, text in STUBS.items():
        (project / "src" / name).write_text(re.sub(r"^ {8}", "", text, flags=re.MULTILINE))
    registry = project / "src/hiddencost/figures/registry.py"
    registry.write_text(f"{registry.read_text()}\nFIGURES = {{name: FIGURES[name] for name in {KINDS}}}\n")
    metrics = project / "src/hiddencost/runs/metrics.py"
    metrics.write_text(metrics.read_text() + SCORES)
    replace(project, "src/hiddencost/runs/ledger.py", "from safetensors.torch", "from safetensors.numpy")
    replace(project, "src/hiddencost/runs/ledger.py", 'safe_open(path, "pt")', 'safe_open(path, "np")')
    scores = (
        'return dict.fromkeys(METRICS, 0.1) | {"accuracy": float(logits), "bin_count": [5], "bin_confidence": [0.5], '
    )
    scores += '"bin_accuracy": [0.4]}'
    replace(project, "src/hiddencost/runs/metrics.py", "logits = logits.detach().cpu().double()", scores)
    # once for all jobs of all tests; by content, as an edit can leave the time and the size of a file as they were
    compileall.compile_dir(project / "src", quiet=1, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)
    config = yaml.safe_load((project / "config.yaml").read_text())
    (project / "config.yaml").write_text(yaml.safe_dump(config | CONFIG, sort_keys=False))
    ran, _ = snakemake(project)
    assert ran == {
        **{"fetch_checkpoint": 1, "fetch_photos": 1, "import_checkpoint": 1, "compress": 2, "verify_backbone": 2},
        **{"fetch_dataset": 1, "prepare_dataset": 2, "draw_splits": 1, "extract_features": 2, "probe": 2},
        **TRAINING,
    }
    assert nothing_to_do(project)
    (project / "trained.log").unlink()


def in_a_terminal():
    """Take signals as what is called in a terminal does, whatever these tests inherited: nohup and & ignore some."""
    for one in (signal.SIGHUP, signal.SIGINT):
        signal.signal(one, signal.SIG_DFL)


def environment_of(project):
    return os.environ | {"PYTHONPATH": str(project / "src"), "PYTHONDONTWRITEBYTECODE": "1"}


def call(project, *arguments, **options):
    command = [sys.executable, "-m", "snakemake", *LOCALLY, *arguments]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "preexec_fn": in_a_terminal} | options
    return subprocess.Popen(command, cwd=project, env=environment_of(project), text=True, **options)


def snakemake(project, *arguments, status=0, preloaded=""):
    """Run the workflow; preloaded: see `forked.snakemake`. Returns how many jobs of each rule ran, and the output."""
    with NamedTemporaryFile("r") as said:
        forks = bool(preloaded) or (project / "src/torch.py").exists()  # a stub; the real one takes seconds to import
        call = [*LOCALLY, *arguments], environment_of(project), said.name
        code = forked.snakemake(project, *call, with_jobs=forks, preloaded=preloaded)
        output = said.read()
    assert code == status, output
    ran = Counter(re.findall(r"Finished jobid: \d+ \(Rule: (\w+)\)", output))
    ran.pop("all", None)
    return dict(ran), output


def planned(project, *arguments):
    """Return how many jobs of each rule a call would run."""
    _, output = snakemake(project, "--dry-run", *arguments)
    table = output.partition("Job stats:")[2].partition("total")[0]
    jobs = {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)}
    jobs.pop("all", None)
    return jobs


def nothing_to_do(project, *arguments):
    return "Nothing to be done" in snakemake(project, "--dry-run", *arguments)[1]


def trained(project):
    """The runs that were trained: (backbone, seed, method, shots)."""
    log = project / "trained.log"
    return sorted(log.read_text().splitlines()) if log.exists() else []


def replace(project, file, old, new):
    path = project / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def configure(project, change, file="config.yaml"):
    path = project / file
    config = yaml.safe_load(path.read_text())
    change(config)
    path.write_text(yaml.safe_dump(config, sort_keys=False))


def touch_everything(project):
    """What a git checkout does to the files of the repository."""
    for name in ("Snakefile", "config.yaml", "workflow", "profiles", "data", "src", "envs"):
        for path in [project / name, *(project / name).rglob("*")]:
            os.utime(path)
