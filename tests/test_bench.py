"""The benchmarks compare like with like."""

import logging
import shutil

import numpy as np
import pandas as pd
import published
import pytest
import rounding
import scale
import throughput
import torch
from conftest import report_prepared

from hiddencost.datasets.prepared import ARRAYS
from hiddencost.files import read_json, write_json
from hiddencost.networks import backbones, inference
from hiddencost.prompting.engine import Plan, PromptedNetwork
from hiddencost.prompting.train import train_prompts
from hiddencost.study.recipes import RunProtocol

CPU = torch.device("cpu")
RECIPE = {"epochs": 2, "learning_rate": 0.01, "milestones": [], "gamma": 0.1, "batch_size": 10, "shuffle": False}
PROTOCOL = RunProtocol(
    **RECIPE, test_batch_size=8, canvas=published.CANVAS, image_size=32, mapping_interval=1, precision="fp32"
)


def test_the_published_loop_learns_what_the_engine_learns(mobilenetv2, threads):
    network, _, manifest = backbones.load(mobilenetv2)
    mean, std = backbones.normalisation(manifest.preprocessing, CPU)
    images, labels = throughput.noise(10, 32)

    prompt = published.Prompt(32, mean, std)
    loader = published.loader(images, labels, 10, CPU, shuffle=False)
    adam, scaler = torch.optim.Adam(prompt.parameters(), lr=0.01), published.scaler(CPU)
    mappings, losses = [], []
    for _ in range(2):
        mappings.append(published.map_labels(network, prompt, 10, loader))
        losses.append(published.train_epoch(network, prompt, adam, scaler, mappings[-1], loader)[0])

    folded = inference.for_inference(network, CPU)
    prompted = PromptedNetwork(folded, mean, std, PROTOCOL, Plan(0.75))
    ((_, run),) = train_prompts(prompted, images, labels, 10, [("ilm", range(10))], 0, PROTOCOL)
    assert run.mappings == [mapping.tolist() for mapping in mappings]
    torch.testing.assert_close(torch.tensor(run.losses), torch.tensor(losses), rtol=1e-3, atol=1e-3)
    logits = prompted.test_logits(images, {"prompt": prompt.program.detach()})[:, run.mapping]
    assert published.test(network, prompt, mappings[-1], loader) == (logits.argmax(1) == labels).float().mean()


def test_the_published_loop_trains_in_fp16_and_maps_and_tests_in_fp32(mobilenetv2, threads, monkeypatch):
    network, _, manifest = backbones.load(mobilenetv2)
    mean, std = backbones.normalisation(manifest.preprocessing, CPU)
    loader = published.loader(*throughput.noise(4, 32), 4, CPU, shuffle=False)
    seen, losses, prompts = [], [], []
    network.register_forward_hook(lambda _, canvas, logits: seen.append(logits.dtype))
    for half in (False, True):
        monkeypatch.setattr(published, "half", lambda _, half=half: half)  # as on a GPU; a CPU can, too
        assert published.scaler(CPU).is_enabled() == half
        # from its default it would skip the first steps
        scaler = torch.amp.GradScaler("cpu", init_scale=256.0, enabled=half)
        prompt = published.Prompt(32, mean, std)
        sgd = torch.optim.SGD(prompt.parameters(), lr=1.0)  # whose step, unlike Adam's, shows the gradient's scale
        mapping = published.map_labels(network, prompt, 10, loader)
        losses.append(published.train_epoch(network, prompt, sgd, scaler, mapping, loader)[0])
        published.test(network, prompt, mapping, loader)
        prompts.append(prompt.program.detach())
    assert seen == [torch.float32] * 3 + [torch.float32, torch.float16, torch.float32]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert losses[1] != losses[0]
    assert prompts[1].norm().item() == pytest.approx(prompts[0].norm().item(), rel=0.1)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more than this machine has cores
@pytest.mark.parametrize(("size", "device", "workers"), [(32, "cuda", 2), (128, "cuda", 8), (32, "cpu", 0)])
def test_the_published_loop_has_loader_workers_on_a_gpu(size, device, workers):
    images, labels = throughput.noise(20, size)
    loader = published.loader(images, labels, 8, torch.device(device), shuffle=False)
    assert loader.num_workers == workers
    loaded = list(loader)
    assert [len(batch) for _, batch in loaded] == [8, 8, 4]
    assert torch.equal(torch.cat([batch for batch, _ in loaded]), images / 255)


def test_the_published_loops_settings_of_cudnn_end_with_it():
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.conv.fp32_precision
    with published.settings():
        assert (cudnn.deterministic, cudnn.conv.fp32_precision) == (True, "tf32")
    assert (cudnn.deterministic, cudnn.conv.fp32_precision) == before


def test_on_a_gpu_the_start_of_the_workers_is_no_part_of_an_image(monkeypatch):
    assert throughput.an_image(lambda images: 0.5 + 0.01 * images, 8) == pytest.approx(0.58 / 8)
    monkeypatch.setattr(throughput, "DEVICE", torch.device("cuda"))
    assert throughput.an_image(lambda images: 0.5 + 0.01 * images, 8) == pytest.approx(0.01)


def test_an_epoch_of_ilm_is_its_steps_and_its_mapping_pass(monkeypatch, threads):
    engine = throughput.Engine("mobilenet_v2", 32, Plan(0.75))
    clock = Clock(engine.prompted)
    monkeypatch.setattr(throughput, "time", clock)
    assert engine.epochs(("rlm",), 2) == 2 * clock.STEP
    assert engine.epochs(("ilm",), 2) == 2 * clock.STEP + 2 * clock.MAPPING
    # each method's steps, and ilm's mapping pass: it is not taken for flm
    assert engine.epochs(throughput.METHODS, 2) == 3 * 2 * clock.STEP + 2 * clock.MAPPING
    # nor blm+ for blm, though both map noise to the one class that a random network sees in it
    assert engine.epochs(throughput.SIX, 2) == 6 * 2 * clock.STEP + 3 * 2 * clock.MAPPING


class Clock:
    """A clock that a network's computations move, by so many seconds an image."""

    STEP, MAPPING = 1.0, 0.25

    def __init__(self, prompted):
        self.now = 0.0
        gradients = prompted.gradients

        def step(chunk):
            self.now += self.STEP * len(chunk.images)
            return gradients(chunk)

        def mapping_by(predict):
            def mapping(images, chosen, *prompts):
                self.now += self.MAPPING * sum(map(len, chosen))
                return predict(images, chosen, *prompts)

            return mapping

        prompted.gradients = step
        prompted.predict, prompted.highest = mapping_by(prompted.predict), mapping_by(prompted.highest)

    def perf_counter(self):
        return self.now


def test_what_the_plan_refuses_is_told(monkeypatch, tmp_path):
    def fit_to_device(*arguments):
        logging.getLogger("hiddencost.prompting.plan").info("whole canvases")
        logging.getLogger("hiddencost.prompting.exactness").warning("border once up to %s: not used", "pool")

    monkeypatch.setattr(throughput, "fit_to_device", fit_to_device)
    assert throughput.plan_engine("resnet18", 32, tmp_path) == {"refused": ["border once up to pool: not used"]}


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_on_a_gpu_both_sides_are_measured(tmp_path):
    loop = throughput.measure_published("resnet18", 32, tmp_path)
    throughput.plan_engine("resnet18", 32, tmp_path)
    engine = throughput.measure_engine("resnet18", 32, tmp_path)
    assert loop["precision"] == "fp16 autocast"
    assert min(side[part] for side in (loop, engine) for part in ("step", "test", "epoch of 10", "memory")) > 0
    assert engine["ilm"] > engine["step"]
    assert engine["flop"] / engine["step"] < engine["matrix_rate"]


def test_ratios_and_packs_are_put_together_from_their_parts(monkeypatch, capsys):
    default = {"memory": 2.0, "step": 0.08, "test": 0.02, "precision": "fp16 autocast"}
    default |= {"epoch of 10": 1.2, "pass of 10": 0.5, "epoch of 100": 8.5, "pass of 100": 2.5}
    tuned = default | {"step": 0.04, "test": 0.01}
    engine = {"memory": 1.0, "step": 0.01, "test": 0.005, "ilm": 0.0125, "epoch of 10": 0.5, "epoch of 100": 4.0}
    engine |= {"precision": "bf16", "flop": 1e9, "flop_whole": 2e9, "matrix_rate": 2e11, "plan": "border once"}
    engine |= {"epoch of 10, six": 1.25, "epoch of 100, six": 8.0}

    def in_process(side, network, size, plans, environment):
        plan = {"refused": refused}
        return {"plan": plan, "engine": engine, "published": tuned if environment else default}[side]

    refused = []
    monkeypatch.setattr(throughput, "in_process", in_process)
    records = throughput.compare("resnet18", 32)
    assert [record["ratio"] for record in records[:3]] == [8, 8, 4]
    assert [record["ratio_same_allocator"] for record in records[:3]] == [4, 4, 2]
    # three runs of 100 epochs, a mapping pass for flm and one an epoch for ilm; 10,000 test images once or an epoch
    pack = 100 * 0.5 + (10 + 30_000) * 0.005
    assert records[3]["engine_ms"] == records[4]["engine_ms"] == pytest.approx(1e3 * pack)
    assert records[3]["baseline_ms"] == pytest.approx(1e3 * (300 * 1.2 + 101 * 0.5 + 30_000 * 0.02))
    assert records[4]["baseline_ms"] == pytest.approx(1e3 * (300 * 1.2 + 101 * 0.5 + 100 * 30_000 * 0.02))
    assert records[5]["baseline_ms"] == pytest.approx(1e3 * (300 * 8.5 + 101 * 2.5 + 30_000 * 0.02))
    assert records[0]["share_of_matrix_rate"] == 0.5
    text = throughput.table(records)
    assert "| resnet18 | 32 | training step, an image | 80.0 ms | 10.0 ms | 8.0x | 4.0x |" in text
    assert "canvas 224, engine bf16, published loop fp16 autocast." in text
    row = "| resnet18 | 32 | 2.00 | 1.00 | 100 | 50% | 2.0 | 1.0 | border once |"
    assert f"{row} nothing |" in text
    assert "The time of a pack of rlm, flm, ilm, blm, blm+, fm against that of the first three:" in text
    ratios = [(100 * 1.25 + 60_020 * 0.005) / pack, (100 * 8.0 + 60_200 * 0.005) / (100 * 4.0 + 30_100 * 0.005)]
    assert f"| resnet18 | 32 | {ratios[0]:.2f}x | {ratios[1]:.2f}x |" in text
    refused += ["up to conv1", "CUDA graphs"]
    assert f"{row} up to conv1; CUDA graphs |" in throughput.table(throughput.compare("resnet18", 32))
    assert "8.0x" in capsys.readouterr().out


TINY = {"backbones": 2, "datasets": 1, "shots": 2, "seeds": 1}


@pytest.mark.parametrize(("kind", "training"), [("packs", 2), ("one job a run", 12)])
@pytest.mark.slow
def test_a_study_is_planned_finished_and_planned_again(kind, training):
    record = scale.measure_planning(kind, TINY, repeats=1)  # it fails where the second plan has a job
    assert (record["runs"], record["training_jobs"]) == (12, training)
    assert record["jobs"] > training
    assert min(record[name] for name in ("plan_seconds", "up_to_date_seconds", "through_seconds")) > 0.5
    assert 50 < record["peak_mb"] < 2000


@pytest.mark.slow
def test_jobs_of_both_kinds_find_the_same_runs_in_the_ledger(mobilenetv2, tmp_path):
    study = scale.job_study() | {"methods": ["rlm", "flm"], "shots": [1], "seeds": [0]}
    study |= {"datasets": [{"name": "cifar10-part", "image_size": 24}]}
    study["protocol"] |= {"canvas": 32}
    network = tmp_path / "results/scale/backbones" / study["backbones"][0]["name"]
    shutil.copytree(mobilenetv2, network)
    write_json(network / "manifest.json", read_json(network / "manifest.json") | {"control": None})
    sparsity = {"sparsity_declared": 0.0, "sparsity_measured": 0.0}
    write_json(network / "verification.json", {"passed": True, "reasons": [], **sparsity})
    prepared = tmp_path / "resources/datasets/cifar10-part/24"
    report_prepared("abcdefghij").write(prepared)
    for name, array in zip(ARRAYS, throughput.noise(10, 24) * 2, strict=True):
        np.save(prepared / name, array.numpy())
    split = tmp_path / "results/scale/splits/cifar10-part/seed0.json"
    write_json(split, {"permutations": [[index] for index in range(10)]})

    jobs = scale.measure_jobs(tmp_path, study)  # it fails where a run is trained twice
    assert {kind: len(seconds) for kind, seconds in jobs.items()} == {"packs": 1, "one job a run": 2}
    pack, runs = (
        pd.concat((pd.read_parquet(tmp_path / path) for path in paths), ignore_index=True)
        for paths in scale.tables_of(study).values()
    )
    assert pack["method"].tolist() == ["rlm", "flm"]
    pd.testing.assert_frame_equal(pack, runs)


def test_overhead_is_snakemakes_time_and_that_of_the_jobs_that_train():
    common = {"jobs": 20, "plan_seconds": 4.0, "up_to_date_seconds": 3.0, "through_seconds": 6.0}
    common |= {"runs": 14_976, "peak_mb": 120.0}
    planning = [common | {"kind": "packs", "training_jobs": 624}]
    planned = {"up_to_date_seconds": None, "through_seconds": None}  # and no more
    planning += [common | planned | {"kind": "one job a run", "training_jobs": 14_976}]
    records = scale.put_together(planning, {"packs": [5.0, 7.0], "one job a run": [5.0]})
    hours = [record["overhead_hours"] for record in records]
    assert hours == pytest.approx([(6 + 624 * 6) / 3600, 14_976 * 5 / 3600])
    text = scale.table(records, "a machine")
    assert "6.0 s (mean of 2 jobs) of a pack, 5.0 s (mean of 1 jobs) of a run" in text
    assert "| 14,976 | packs | 20 | 624 | 4.0 s | 3.0 s | 6.0 s | 120 MB | 1.04 h |" in text
    assert "| 14,976 | one job a run | 20 | 14,976 | 4.0 s | – | – | 120 MB | 20.80 h |" in text


def test_what_rounding_moves_stands_beside_what_seeds_do():
    made = [(10, 12), (20, 26)]  # by seed, in two ways
    rows = [
        {"method": "ilm", "shots": 1, "seed": seed, "way": way, "accuracy": accuracy}
        for seed, of_seed in enumerate(made)
        for way, accuracy in zip("ab", of_seed, strict=True)
    ]
    (row,) = rounding.summarise(pd.DataFrame(rows)).to_dict("records")
    assert (row["mean"], row["most"]) == (17, 6)
    assert row["rounding"] == pytest.approx(((2 + 18) / 2) ** 0.5)  # variances of 2 and 18
    assert row["seeds"] == pytest.approx(((50 + 98) / 2) ** 0.5)
