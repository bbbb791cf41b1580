"""Time the engine on CLIP against the published loop, side by side, and write bench/results/clip.{json,md}.

python bench/clip.py                                    # ViT-B/32 and ViT-L/14@336
python bench/clip.py --networks ViT-B-32-quickgelu
"""

import argparse
from tempfile import TemporaryDirectory

import published
import torch
from throughput import CLASSES, DEVICE, an_image, least, machine, noise, peak_rate, publish, runs, seconds
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from hiddencost.networks.arithmetic import count_multiply_adds
from hiddencost.networks.build import build
from hiddencost.networks.clip import model
from hiddencost.networks.families import FAMILIES
from hiddencost.prompting.engine import FrozenNetwork, PromptedNetwork
from hiddencost.prompting.plan import fit_to_device
from hiddencost.prompting.train import train_prompts
from hiddencost.study.recipes import RunClipProtocol

CLIP = FAMILIES["clip"]
NETWORKS = {"ViT-B-32-quickgelu": 48, "ViT-L-14-336-quickgelu": 4}  # with the images of a measurement on a CPU
BATCH, BORDER, TEMPLATES = 16, 30, 81  # as published
MEAN, STD = (torch.tensor(v, device=DEVICE).reshape(3, 1, 1) for v in ([0.48, 0.46, 0.41], [0.27, 0.26, 0.28]))
METHODS = ("rlm", "flm", "ilm")


class Prompt(nn.Module):
    """The published prompt: a border that is added to a normalised image; images [N, 3, S, S] in [0, 1]."""

    def __init__(self, canvas: int):
        super().__init__()
        self.program = nn.Parameter(torch.zeros(3, canvas, canvas))
        inside = torch.zeros(3, canvas - 2 * BORDER, canvas - 2 * BORDER)
        self.register_buffer("mask", functional.pad(inside, (BORDER,) * 4, value=1))

    def forward(self, images: Tensor) -> Tensor:
        return (images - MEAN) / STD + self.program * self.mask


def published_loop(network: nn.Module, texts: Tensor, count: int, size: int) -> tuple[float, float]:
    """Return the seconds an image of training, and of a pass over the images, of the loop as published (see
    published.py): one run, on a CPU of at most `count` images, open_clip's network as it comes. Images come at the
    canvas's size; the authors' workers also resize them."""
    prompt = Prompt(size).to(DEVICE)
    sgd = torch.optim.SGD(prompt.parameters(), lr=40.0, momentum=0.9)
    mapping, scaler = torch.arange(CLASSES, device=DEVICE), published.scaler(DEVICE)
    batch = min(count, BATCH)

    def logits(canvas: Tensor) -> Tensor:
        embedding = functional.normalize(network.encode_image(canvas), dim=1)
        return network.logit_scale.exp() * embedding @ texts.T

    def loader(images: int) -> DataLoader:
        return published.loader(*noise(images, size), batch, DEVICE)

    def epoch(images: int) -> float:
        arguments = logits, prompt, sgd, scaler, mapping, loader(images)
        return seconds(lambda: published.train_epoch(*arguments))

    def test(images: int) -> float:
        batches = loader(images)
        return seconds(lambda: published.test(logits, prompt, mapping, batches))

    with published.settings():
        epoch(batch), test(batch)
        return an_image(epoch, batch), an_image(test, batch)


def engine(classifier: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float, float, PromptedNetwork]:
    """Return the time of an epoch of one run, that of a pass over the images, and that of an epoch of a pack of all
    methods, by the engine as a job of the workflow runs it."""
    protocol = RunClipProtocol(
        **{"epochs": 1, "learning_rate": 40.0, "momentum": 0.9, "border": BORDER, "batch_size": BATCH},
        **{"shuffle": True, "test_batch_size": 128, "mapping_interval": 1, "precision": "auto"},
        **{"canvas": images.shape[-1], "interpolation": "bicubic"},
    )
    frozen = FrozenNetwork(CLIP.for_inference(classifier, DEVICE), MEAN, STD, protocol)
    with TemporaryDirectory() as plans:
        prompted = fit_to_device(frozen, plans, 8 * 2**30)

    def epoch(methods: tuple[str, ...]) -> None:
        list(train_prompts(prompted, images, labels, CLASSES, runs(methods, len(images)), 0, protocol))

    def test() -> None:
        prompted.test_logits(images, prompted.new_prompt())

    epoch(("rlm",)), test()
    one = least(lambda: seconds(lambda: epoch(("rlm",))))
    return one, least(lambda: seconds(test)), least(lambda: seconds(lambda: epoch(METHODS))), prompted


def compare(name: str, count: int) -> list[dict]:
    """Measure one network. Returns the records."""
    torch.manual_seed(0)
    network = build(f"clip/{name}").requires_grad_(False).to(DEVICE)
    canvas, (gmacs, _) = model.image_size(network), count_multiply_adds(f"clip/{name}")
    images = torch.randint(0, 256, (count, 3, canvas, canvas), dtype=torch.uint8, device=DEVICE)
    labels = torch.arange(count, device=DEVICE) % CLASSES
    texts = functional.normalize(
        torch.randn(TEMPLATES * CLASSES, network.text_projection.shape[1], device=DEVICE), dim=1
    )
    step, test = published_loop(network, texts, count, canvas)
    classifier = model.text_classifier(network, texts, model.scale(network))
    ours, our_test, pack, prompted = engine(classifier, images, labels)
    gflop = 4 * gmacs * (canvas / 224) ** 2  # forward and backward to the image
    rate = peak_rate(torch.bfloat16 if prompted.precision == "bf16" else torch.float32)
    about = {"network": name, "canvas": canvas, "device": machine(), "precision": prompted.precision}
    about |= {"baseline_precision": published.precision(DEVICE)}
    rows = [
        ("training step, an image", step, ours / count),
        ("test, an image", test, our_test / count),
        # flm and ilm map once before their first epoch
        ("pack of RLM, FLM and ILM, an epoch, an image", 3 * step + 2 * test, pack / count),
    ]
    records = [
        about | {"what": what, "baseline_ms": 1e3 * loop, "engine_ms": 1e3 * own, "ratio": loop / own}
        for what, loop, own in rows
    ]
    records[0] |= {"gflop": gflop, "share_of_matrix_rate": gflop * 1e9 * count / ours / rate}
    for one in records:
        print(
            "{network:24} {what:46} {baseline_ms:10,.1f} {engine_ms:10,.1f} {ratio:6.1f}x".format(**one), flush=True
        )
    return records


def table(records: list[dict]) -> str:
    """Return the records as a Markdown table."""
    line = "Measured on {device}; engine {precision}, published loop {baseline_precision}."
    lines = [line.format(**records[0]), ""]
    lines += ["| network | what | published loop | engine | ratio |", "|---" * 5 + "|"]
    row = "| {network} | {what} | {baseline_ms:,.1f} ms | {engine_ms:,.1f} ms | {ratio:.1f}x |"
    lines += [row.format(**one) for one in records]
    lines += [""] + [
        "{network}: {gflop:.0f} GFLOP a trained image, at {share_of_matrix_rate:.0%} of the matrix rate.".format(
            **one
        )
        for one in records
        if "gflop" in one
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    names = parser.parse_args().networks
    counts = {name: 256 if DEVICE.type == "cuda" else NETWORKS[name] for name in names}
    records = [record for name in names for record in compare(name, counts[name])]
    publish("clip", records, table(records))


if __name__ == "__main__":
    main()
