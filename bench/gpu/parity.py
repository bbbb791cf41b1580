"""Does a GPU compute what the CPU computes? In float32 against the CPU's float64, and bfloat16 against float32."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial

import torch
from measuring import DEVICE, Case, cifar, each, error, mobilenet, normalisation, product, protocol
from stages import Stage
from torch import Tensor, nn

from hiddencost.networks.inference import for_inference
from hiddencost.prompting.chunk import Chunk
from hiddencost.prompting.engine import Plan, PromptedNetwork
from hiddencost.prompting.train import TrainedPrompt, train_prompts
from hiddencost.study.recipes import RunProtocol

METHODS = ("rlm", "flm", "ilm")
EPOCHS = 2  # of the runs that are compared with the CPU's
CPU = torch.device("cpu")
# Most that float32 may differ from float64, as a part of the norm. The gradient's is larger, as rounding moves
# activations over the kink of a ReLU.
TOLERANCE = {"logits": 1e-4, "loss": 1e-4, "gradient": 3e-2}


def sizes(dry: bool) -> tuple[int, int, int]:
    """Return the shots, the side of the images and of the canvas: small, as a CPU is slow in float64."""
    return (1, 32, 48 if dry else 96)


def run_parity(stage: Stage) -> None:
    """float32 on this device, eager and replayed, whole canvases and the border once, against float64 on the CPU."""
    graphs = (False, True) if DEVICE.type == "cuda" else (False,)
    each(stage, product(cover=(None, 0.75), graphs=graphs), 15, partial(parity, stage.dry))


@cache
def expected(dry: bool) -> tuple[dict[int, TrainedPrompt], Chunk, Tensor, Tensor]:
    """Return what the CPU makes in float64: trained runs; and of a chunk its logits and gradient."""
    shots, size, canvas = sizes(dry)
    recipe = protocol(size, canvas, "fp32", epochs=EPOCHS, batch_size=5)
    network = copy.deepcopy(mobilenet()[0]).double()
    exact = PromptedNetwork(network, *normalisation(CPU, torch.float64), recipe, Plan())
    images, labels = cifar("train", shots, size)
    few = torch.arange(len(images))[:: max(1, len(images) // 10)]
    prompts = torch.randn(1, 3, canvas, canvas, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = torch.full((len(few),), 1 / len(few))
    chunk = Chunk(images[few], labels[few], weights, torch.zeros_like(few), _first(1), {"prompt": prompts})
    with torch.inference_mode():
        logits = exact.logits(chunk.images, chunk.parameters, chunk.runs, "fp32")
    gradient = exact.gradients(replace(chunk, weights=chunk.weights.double()))[1]["prompt"]
    return train(exact, images, labels, recipe), chunk, logits, gradient


def _first(runs: int) -> Tensor:
    return torch.arange(10).expand(runs, -1)


def train(prompted: PromptedNetwork, images: Tensor, labels: Tensor, recipe: RunProtocol) -> dict[int, TrainedPrompt]:
    """Return a run of each method on all images, by number."""
    there = images.to(prompted.device), labels.to(prompted.device)
    runs = [(method, range(len(images))) for method in METHODS]
    return dict(train_prompts(prompted, *there, 10, runs, 0, recipe))


def parity(dry: bool, cover: float | None, graphs: bool) -> Iterator[Case]:
    """Yield how far float32 on this device is from the CPU's float64, and whether it repeats itself to the bit."""
    runs, chunk, logits, gradient = expected(dry)
    shots, size, canvas = sizes(dry)
    recipe = protocol(size, canvas, "fp32", epochs=EPOCHS, batch_size=5)
    network = for_inference(mobilenet()[0], DEVICE)
    prompted = PromptedNetwork(network, *normalisation(), recipe, Plan(cover, graphs=graphs))
    *fixed, prompts = chunk.tensors()
    here = chunk.of(*(part.to(DEVICE) for part in (*fixed, prompts.float())))
    with torch.inference_mode():
        off = {"logits": error(prompted.logits(here.images, here.parameters, here.runs, "fp32"), logits)}
    for _ in range(5):  # with graphs the last ones are replays
        found = prompted.gradients(here)[1]["prompt"].clone()
    off["gradient"] = error(found, gradient)
    again = error(prompted.gradients(here)[1]["prompt"], found)
    first, second = (train(prompted, *cifar("train", shots, size), recipe) for _ in range(2))
    steps = len(first[0].losses) // EPOCHS  # of the first epoch: later ones differ as the prompts do
    losses = [torch.tensor([one.losses for one in some.values()]) for some in (first, runs)]
    off["loss"] = error(*(some[:, :1] for some in losses))
    yield {
        "weights": mobilenet()[1],
        "off": off,
        "losses of the first epoch": error(*(some[:, :steps] for some in losses)),
        "losses of all": error(*losses),
        "prompts": error(*(torch.stack([one.prompt.cpu() for one in some.values()]) for some in (first, runs))),
        "first mappings equal": all(first[run].mappings[0] == runs[run].mappings[0] for run in runs),
        "mappings equal": sum(first[run].mappings == runs[run].mappings for run in runs),
        "gradient repeats": again,
        "prompts repeat": all(torch.equal(first[run].prompt, second[run].prompt) for run in runs),
        "passed": all(off[key] <= most for key, most in TOLERANCE.items()),
    }


def run_precision(stage: Stage) -> None:
    """Bfloat16 and TF32 against float32 on this device."""
    each(stage, product(cover=(0.75,) if stage.dry else (0.75, None)), 15, partial(precision, stage.dry))


def precision(dry: bool, cover: float | None) -> Iterator[Case]:
    """Yield how far lower precisions are from float32: of logits and gradients; of certified first classes, and how
    many the certificate asked for in full; and of trained runs, on real images."""
    size, canvas = 32, 48 if dry else 224
    shots, tested, epochs = (1, 1, 1) if dry else (20, 50, 10)
    network, images = for_inference(mobilenet()[0], DEVICE), cifar("train", shots, size)
    test = cifar("test", tested, size)
    recipes = {kind: protocol(size, canvas, kind, epochs=epochs, batch_size=100) for kind in ("fp32", "bf16")}
    prompted = {kind: PromptedNetwork(network, *normalisation(), one, Plan(cover)) for kind, one in recipes.items()}
    shown, few = test[0].to(DEVICE), slice(20)
    noise = {"prompt": torch.randn(1, 3, canvas, canvas, generator=torch.Generator().manual_seed(0)).to(DEVICE)}
    runs = torch.zeros(len(shown), dtype=torch.int64, device=DEVICE)
    weights = torch.full((len(shown[few]),), 1 / len(shown[few]), device=DEVICE)
    chunk = Chunk(shown[few], test[1][few].to(DEVICE), weights, runs[few], _first(1).to(DEVICE), noise)
    gradients = {kind: some.gradients(chunk)[1]["prompt"] for kind, some in prompted.items()}
    with torch.inference_mode():
        logits = {how: prompted["bf16"].logits(shown, noise, runs, how) for how in ("fp32", "tf32", "bf16")}
    for how in ("tf32", "bf16"):
        off = {"logits": error(logits[how], logits["fp32"])}
        if how == "bf16":
            off["gradient"] = error(gradients["bf16"], gradients["fp32"])
        changed = (logits[how].argmax(1) != logits["fp32"].argmax(1)).sum().item()
        yield {"precision": how, **off, "first classes changed": changed, "of": len(shown)}
        yield {"precision": how, **certified(network, recipes["bf16"], cover, how, dry)}
    yield from learned(prompted, images, test, recipes)


def certified(network: nn.Module, recipe: RunProtocol, cover: float | None, how: str, dry: bool) -> Case:
    """Return how many first classes differ that a lower precision, told to be cheap, was certified for."""
    parts = [cifar(part, 1 if dry else most, recipe.image_size)[0] for part, most in (("test", 50), ("train", 25))]
    images = torch.cat(parts).to(DEVICE)
    noise = torch.randn(1, 3, recipe.canvas, recipe.canvas, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    arguments = network, *normalisation(), recipe
    cheap, full = (
        PromptedNetwork(*arguments, Plan(cover, forward_ms=told)) for told in ({"fp32": 9.0, how: 1.0}, {})
    )
    found = [one.predict(images, [torch.arange(len(images))], {"prompt": noise}) for one in (cheap, full)]
    differ = (found[0] != found[1]).sum().item()
    return {"certified": str(cheap.certified), "differ": differ, "of": len(images), "passed": not differ}


def learned(
    prompted: dict[str, PromptedNetwork],
    images: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    recipes: dict[str, RunProtocol],
) -> Iterator[Case]:
    """Yield the test accuracies of each method, trained in each precision."""
    trained = {kind: train(some, *images, recipes[kind]) for kind, some in prompted.items()}
    for number, method in enumerate(METHODS):
        right, first = {}, []
        for kind, runs in trained.items():
            logits = prompted[kind].test_logits(test[0], runs[number].parameters).cpu()[:, runs[number].mapping.cpu()]
            right[kind] = (logits.argmax(1) == test[1]).double().mean().item()
            first.append(runs[number].mappings[0])
        yield {"method": method, "accuracy": right, "first mappings equal": first[0] == first[1]}
