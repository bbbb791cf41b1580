"""How fast is the engine beside the published loop, on classifiers and on CLIP?"""

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import clip as clip_bench
import published
import torch
from measuring import DEVICE, TINY, Case, chunk, each, kernels, milliseconds, normalisation, peak_megabytes, tiny_clip
from stages import Stage
from throughput import EPOCHS, METHODS, TEST_IMAGES, Baseline, Engine, noise, peak_rate
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from hiddencost.networks.build import build
from hiddencost.networks.clip import model
from hiddencost.networks.families import FAMILIES
from hiddencost.prompting.chunk import Chunk
from hiddencost.prompting.engine import FrozenNetwork, PromptedNetwork
from hiddencost.prompting.plan import fit_to_device
from hiddencost.study.recipes import PromptingProtocol, RunClipProtocol

VIT = "timm/vit_base_patch16_224"
CASES = [  # what matters most first, as time may run out
    ("resnet50", 32),
    ("mobilenet_v2", 32),
    ("resnet18", 32),
    (VIT, 32),
    ("resnet50", 128),
    ("mobilenet_v2", 128),
    ("resnet18", 128),
    ("resnet34", 32),
    ("resnet34", 128),
    (VIT, 128),
]
BATCHES = 2, 10  # of a short and of a long pass of the published loop
SHOT = 10  # images of a run of one shot, of ten classes


def run(stage: Stage) -> None:
    """The classifiers."""
    cases = [{"network": name, "size": size} for name, size in ([(TINY, 32)] if stage.dry else CASES)]
    each(stage, cases, 20, partial(compare, stage.dry))


def compare(dry: bool, network: str, size: int) -> Iterator[Case]:
    """Yield the published loop's times, the engine's with its plan, and their ratios."""
    loop = published_loop(network, size, dry)
    yield {"what": "published loop", **loop}
    with TemporaryDirectory() as plans:
        start = time.monotonic()
        engine = Engine(network, size, Path(plans))
        planned = time.monotonic() - start
    yield {"what": "plan", "plan": str(engine.prompted.plan), "seconds": planned}
    ours = measure(engine, dry)
    yield {"what": "engine", **ours}
    tests = TEST_IMAGES * len(METHODS)
    # of one shot: flm maps once, ilm at each epoch
    shot = EPOCHS * len(METHODS) * loop["epoch_of_a_shot_ms"] + (1 + EPOCHS) * loop["pass_of_a_shot_ms"]
    pack = EPOCHS * ours["pack_of_a_shot_ms"] + tests * ours["test_ms"]
    yield {
        "what": "ratios",
        "step": loop["step_ms"] / ours["step_ms"],
        "step without loader": loop["bare_step_ms"] / ours["step_ms"],
        "test": loop["test_ms"] / ours["test_ms"],
        "full pack": (len(METHODS) * loop["step_ms"] + loop["test_ms"]) / ours["pack_ms"],
        "1-shot pack, a test in the end": (shot + tests * loop["test_ms"]) / pack,
        "1-shot pack, a test an epoch": (shot + EPOCHS * tests * loop["test_ms"]) / pack,
        "1-shot pack without tests": shot / (EPOCHS * ours["pack_of_a_shot_ms"]),
    }


def published_loop(network: str, size: int, dry: bool) -> Case:
    """Return the published loop's times in ms: of a training step and a test, an image; of an epoch of training on,
    and of a pass over, the images of one shot."""
    baseline = Baseline(network, size)
    batch = 2 if dry else baseline.batch

    def an_image(work) -> float:  # by the difference, as workers start once a pass
        few, many = (min(work(batches * batch) for _ in range(2)) for batches in BATCHES)
        return (many - few) / (BATCHES[1] - BATCHES[0]) / batch * 1e3

    images, labels = (part.to(DEVICE) for part in noise(batch, size))
    pictures = images.float() / 255

    def bare() -> None:
        with torch.autocast(DEVICE.type, torch.float16, enabled=published.half(DEVICE)):
            loss = functional.cross_entropy(baseline.network(baseline.prompt(pictures))[:, baseline.mapping], labels)
        baseline.scaler.scale(loss).backward()

    with published.settings():
        baseline.epoch(batch), baseline.test(batch)
        found = {"step_ms": an_image(baseline.epoch), "test_ms": an_image(baseline.test)}
        found["bare_step_ms"] = milliseconds(bare) / batch
        found |= {"kernels": kernels(bare), "peak_mb_an_image": _each(peak_megabytes(bare), batch)}
        found["epoch_of_a_shot_ms"] = min(baseline.epoch(SHOT) for _ in range(2)) * 1e3
        found["pass_of_a_shot_ms"] = min(baseline.test(SHOT) for _ in range(2)) * 1e3
    return found | {"precision": published.precision(DEVICE)}


def _each(value: float | None, count: int) -> float | None:
    return None if value is None else value / count


def measure(engine: Engine, dry: bool) -> Case:
    """Return the engine's times in ms: of a training step, a test and an epoch of a full pack, an image; of an epoch
    of a pack of one shot. And what a chunk of three full batches takes."""
    count, tested = (4, 4) if dry else (512, 2048)
    found = {
        "step_ms": engine.epochs(("rlm",), count) / count * 1e3,
        "ilm_ms": engine.epochs(("ilm",), count) / count * 1e3,
        "pack_ms": engine.epochs(METHODS, count) / count * 1e3,
        "pack_of_a_shot_ms": engine.epochs(METHODS, SHOT) * 1e3,
    }
    engine.test(tested)
    found["test_ms"] = engine.test(tested) / tested * 1e3
    prompted = engine.prompted
    whole = chunk(len(METHODS), 2 if dry else 128, engine.size)
    found |= {"precision": prompted.precision, "ends": prompted.sharing_ends()}
    found |= {"certified": str(prompted.certified), "no graphs": prompted.why_no_graphs()}
    return found | of_a_chunk(prompted, engine.protocol, whole)


def of_a_chunk(prompted: PromptedNetwork, recipe: PromptingProtocol, chunk: Chunk) -> Case:
    """Return what a gradient of a chunk takes: ms, arithmetic and its share of the matrix rate, kernels, memory."""
    count = len(chunk.images)
    for _ in range(4):  # until it is captured
        prompted.gradients(chunk)
    gradient = milliseconds(lambda: prompted.gradients(chunk)) / count
    plan = replace(prompted.plan, graphs=False)
    eager = PromptedNetwork(prompted.network, prompted.mean, prompted.std, recipe, plan)
    with FlopCounterMode(display=False) as counter:
        eager.gradients(chunk)
    gflop = counter.get_total_flops() / count / 1e9
    rate = peak_rate(torch.bfloat16 if prompted.precision == "bf16" else torch.float32) / 1e9
    return {
        "gradient_ms": gradient,
        "gflop": gflop,
        "share": gflop / gradient * 1e3 / rate,
        "kernels": kernels(lambda: prompted.gradients(chunk)),
        "peak_mb_an_image": _each(peak_megabytes(lambda: eager.gradients(chunk)), count),
    }


CLIPS = [{"network": "ViT-B-32-quickgelu", "beside": True}, {"network": "ViT-L-14-336-quickgelu", "beside": False}]
IMAGES = 256  # of a measurement beside the published loop


def run_clip(stage: Stage) -> None:
    """CLIP."""
    cases = [{"network": tiny_clip(stage.out), "beside": True}] if stage.dry else CLIPS
    each(stage, cases, 25, partial(compare_clip, stage.dry))


def compare_clip(dry: bool, network: str, beside: bool) -> Iterator[Case]:
    """Yield what the engine's step takes on a CLIP, replayed and not, and, beside it, bench/clip.py's comparison."""
    torch.manual_seed(0)
    whole = build(f"clip/{network}").requires_grad_(False)
    canvas, (runs, shown) = model.image_size(whole), (1, 2) if dry else (len(METHODS), clip_bench.BATCH)
    texts = torch.randn(clip_bench.TEMPLATES * 10, whole.text_projection.shape[1])
    classifier = model.text_classifier(whole, functional.normalize(texts, dim=1), model.scale(whole))
    recipe = RunClipProtocol(
        **{"epochs": 1, "learning_rate": 40.0, "momentum": 0.9, "border": clip_bench.BORDER, "canvas": canvas},
        **{"batch_size": clip_bench.BATCH, "shuffle": True, "test_batch_size": 128, "mapping_interval": 1},
        **{"precision": "auto", "interpolation": "bicubic"},
    )
    frozen = FrozenNetwork(FAMILIES["clip"].for_inference(classifier, DEVICE), *normalisation(), recipe)
    with TemporaryDirectory() as plans:
        plan = fit_to_device(frozen, plans, 8 * 2**30).plan
    images = chunk(runs, shown, canvas, canvas)
    for graphs in {False, plan.graphs}:
        prompted = PromptedNetwork(*frozen, replace(plan, graphs=graphs))
        yield {"what": "engine", "plan": str(prompted.plan), **of_a_chunk(prompted, recipe, images)}
    with torch.inference_mode():
        exact = milliseconds(lambda: prompted.logits(images.images, images.parameters, images.runs, "fp32"), 3, 1)
    yield {"what": "exact pass", "ms": exact / len(images.images)}
    if beside:
        for record in clip_bench.compare(network, 2 if dry else IMAGES):
            found = {key: record[key] for key in ("baseline_ms", "engine_ms", "ratio")}
            yield {"what": record["what"], **found, "precision": record["precision"]}
