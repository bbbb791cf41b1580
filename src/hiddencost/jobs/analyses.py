"""Inputs and settings of the rules in analyses.smk: what is asked of networks and finished runs, without training."""

from collections.abc import Callable
from itertools import product

from hiddencost.datasets import corruptions
from hiddencost.digest import APART, code_digest, module_file
from hiddencost.files import canonical, sha256_text
from hiddencost.jobs import analysis_cost, layout, places, training
from hiddencost.jobs.call import Call, code
from hiddencost.jobs.grid import methods_of, pack_table, to_run
from hiddencost.methods.registry import JOBS
from hiddencost.results.analyses import ANALYSES


def asked(call: Call) -> list[str]:
    """Return the analyses of a call, by name; a partial one, which makes nothing for its tables, has none."""
    return [] if call.partial else call.study.analysis


def evaluated(call: Call, analysis: str) -> list[str]:
    """Return the files of all jobs of an analysis."""
    of, names = ANALYSES[analysis].of, to_run(call)
    if ANALYSES[analysis].compares:
        names = names | {"backbone": compared(call)}
    pattern = layout.ANALYSIS[of].replace("{analysis}", analysis)
    each = product(*(names[wildcard] for wildcard in of))
    return [call.path(pattern, **dict(zip(of, values, strict=True))) for values in each]


def tables(call: Call, analysis: str) -> dict[str, str]:
    """Return the tables of an analysis, by name."""
    return {name: f"{call.output}/{layout.TABLES[name]}" for name in ANALYSES[analysis].tables}


def all_tables(call: Call) -> list[str]:
    """Return the tables of all analyses of a call."""
    return [path for analysis in asked(call) for path in tables(call, analysis).values()]


def left(call: Call, made: Callable[[str], bool]) -> list[tuple[str, str, float]]:
    """Return the jobs of analyses that compute much and are not there, each by its backbone and dataset, with its
    GFLOP. made: whether what a file is for is counted."""
    names, study, jobs = to_run(call), call.study, []
    for analysis in asked(call):
        if gflop := analysis_cost.ANALYSIS_GFLOP.get(analysis):
            pattern, wanted = layout.ANALYSIS[ANALYSES[analysis].of], set(evaluated(call, analysis))
            for backbone, dataset in product(names["backbone"], names["dataset"]):
                path = call.path(pattern, analysis=analysis, backbone=backbone, dataset=dataset)
                if path in wanted and made(path):
                    settings = study.backbone(backbone)
                    of = call.checkpoints[settings.checkpoint], call.datasets[dataset]
                    jobs.append((backbone, dataset, gflop(study, settings, *of, study.dataset(dataset).batch_size)))
    return jobs


def tabulate(call: Call, analysis: str) -> dict:
    """Return which analysis makes tables, and the digest of the code that does."""
    module = module_file(ANALYSES[analysis].tabulated_by.partition(":")[0])
    return {"analysis": analysis, "code": sha256_text(canonical([code(call.root, "tabulate"), code_digest(module)]))}


def networks_to_measure(call: Call, backbone: str) -> dict[str, list[str]]:
    """Return the files of a backbone, and of the dense one that it is measured beside, if there is one, by name."""
    of_network = [f"{layout.BACKBONE}/{file}" for file in layout.NETWORK_FILES]
    named = {"backbone": backbone, "dense": measured_beside(call, backbone)}
    return {
        key: [call.path(path, backbone=name) for path in of_network] if name else [] for key, name in named.items()
    }


def measured_beside(call: Call, backbone: str) -> str | None:
    """Return the dense backbone that one is measured beside, None where there is none or it is that itself."""
    name = call.study.dense_of(call.study.backbone(backbone))
    return name if name != backbone and name in to_run(call)["backbone"] else None


def latency(call: Call, backbone: str) -> dict:
    """Return the sides of the inputs, in pixels, of a backbone and of the dense one that it is measured beside."""
    named = {"canvas": backbone, "dense_canvas": measured_beside(call, backbone)}
    return {key: call.study.canvas(call.study.backbone(name)) for key, name in named.items() if name}


def shifted_images(call: Call, backbone: str, dataset: str) -> dict[str, str]:
    """Return the folder of the images that are corrupted, by the size at which a backbone sees them: as published,
    where they are squares of one size, else prepared at that size."""
    study, native = call.study, call.datasets[dataset].native_size
    sizes = study.sizes(dataset, study.backbone(backbone))
    seen = {sizes[job] for job in _shifted_jobs(call, backbone)}
    return {size: places.prepared_folder(call, dataset, native or size) for size in sorted(seen)}


def _shifted_jobs(call: Call, backbone: str) -> list[str]:
    """Return the jobs of a backbone whose runs keep what they have learned."""
    return [job for job, of_job in JOBS.items() if not of_job.crops and methods_of(call.study, job, backbone)]


def shift(call: Call, backbone: str, dataset: str) -> dict:
    """Return which images a backbone's finished runs are scored on, where they are, and the digest of the code."""
    of_images = {name: corruptions.digest(name) for name in call.study.shift.corruptions}
    of_code = sha256_text(canonical([code(call.root, "shift"), ANALYSES["shift"].digest(), of_images]))
    images = shifted_images(call, backbone, dataset)
    return call.study.shift.model_dump() | {"images": images, "code": of_code}


def shift_inputs(call: Call, backbone: str, dataset: str) -> dict[str, list[str]]:
    """Return the files of a backbone's finished runs on a dataset, and of the images to corrupt, by name."""
    folders = shifted_images(call, backbone, dataset).values()
    packs = [{"backbone": backbone, "dataset": dataset, "seed": seed} for seed in call.study.seeds]
    jobs = _shifted_jobs(call, backbone)
    prompted, probed = (
        [pack_table(call, job, pack) for job in jobs if JOBS[job].prompts == prompts for pack in packs]
        for prompts in (True, False)
    )
    return {
        "images": [f"{folder}/{file}" for folder in dict.fromkeys(folders) for file in layout.PREPARED_FILES],
        "prompted": prompted,
        "probed": probed,
        "texts": training.texts(call, backbone, dataset) if prompted else [],
    }


def comparing(call: Call) -> list[str]:
    """Return the analyses of a call that compare pairs of networks."""
    return [name for name in asked(call) if ANALYSES[name].compares]


def dense_of(call: Call, backbone: str) -> str | None:
    """Return the dense network that one is evaluated beside, None where there is none with prompts."""
    dense = call.study.dense_of(call.study.backbone(backbone))
    return dense if dense != backbone and dense in _prompted(call) else None


def _prompted(call: Call) -> list[str]:
    return [name for name in to_run(call)["backbone"] if methods_of(call.study, "train", name)]


def compared(call: Call) -> list[str]:
    """Return the names of the backbones that are evaluated beside their dense one."""
    return [name for name in _prompted(call) if dense_of(call, name)]


def networks_to_compare(call: Call, backbone: str, dataset: str) -> dict[str, list[str]]:
    """Return the files of a pair, by the names of `runs.pairs.PairInputs.of`."""
    dense = dense_of(call, backbone)
    assert dense, f"{backbone} has no dense network"
    files = {"dataset": training.images_to_prompt(call, backbone, dataset)}
    for key, before, name in (("backbone", "", backbone), ("dense", "dense_", dense)):
        packs = [{"backbone": name, "dataset": dataset, "seed": seed} for seed in call.study.seeds]
        files |= {
            key: [call.path(f"{layout.BACKBONE}/{file}", backbone=name) for file in layout.NETWORK_FILES],
            f"{before}packs": [pack_table(call, "train", pack) for pack in packs],
            f"{before}texts": training.texts(call, name, dataset),
        }
    return files


def compare(call: Call, analysis: str) -> dict:
    """Return what evaluates the pairs of an analysis: the function, and the digest of its code."""
    function = str(ANALYSES[analysis].compares)
    of_function = code_digest(module_file(function.partition(":")[0]), apart=APART["compare"])
    of_code = [code(call.root, "compare"), of_function, ANALYSES[analysis].digest()]
    return {"function": function, "code": sha256_text(canonical(of_code))}


def claimed_tables(call: Call) -> dict[str, str]:
    """Return the tables that claims are put to the test on: of each analysis of runs its first, a row a run."""
    of_runs = (ANALYSES[analysis] for analysis in asked(call) if "dataset" in ANALYSES[analysis].of)
    names = [analysis.tables[0] for analysis in of_runs]
    return {name: f"{call.output}/{layout.TABLES[name]}" for name in names}
