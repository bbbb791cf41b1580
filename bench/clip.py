"""Time the engine on CLIP against the published loop, side by side, and write bench/results/clip.{json,md}.

python bench/clip.py                                    # ViT-B/32 and ViT-L/14@336
python bench/clip.py --networks ViT-B-32-quickgelu
"""

import argparse
from tempfile import TemporaryDirectory

import torch
from throughput import CLASSES, DEVICE, least, machine, peak_rate, publish, seconds
from torch import Tensor, nn
from torch.nn import functional

from hiddencost import clip
from hiddencost.backbone import build, for_inference
from hiddencost.engine import PromptedNetwork, train_prompts
from hiddencost.plan import choose
from hiddencost.protocol import RunClipProtocol

NETWORKS = {"ViT-B-32-quickgelu": 48, "ViT-L-14-336-quickgelu": 4}  # with the images of a measurement on a CPU
BATCH, BORDER, TEMPLATES = 16, 30, 81  # as published
MEAN, STD = (torch.tensor(v, device=DEVICE).reshape(3, 1, 1) for v in ([0.48, 0.46, 0.41], [0.27, 0.26, 0.28]))
METHODS = ("rlm", "flm", "ilm")


class Prompt(nn.Module):
    """The published prompt: a border that is added to a normalised image."""

    def __init__(self, canvas: int):
        super().__init__()
        self.program = nn.Parameter(torch.zeros(3, canvas, canvas))
        inside = torch.zeros(3, canvas - 2 * BORDER, canvas - 2 * BORDER)
        self.register_buffer("mask", functional.pad(inside, (BORDER,) * 4, value=1))

    def forward(self, images: Tensor) -> Tensor:
        return images + self.program * self.mask


def published(network: nn.Module, texts: Tensor, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Return the time of an epoch of training, and that of a pass over the images, of the loop as published: one run,
    open_clip's network as it comes, float32."""
    prompt = Prompt(images.shape[-1]).to(DEVICE)
    sgd = torch.optim.SGD(prompt.parameters(), lr=40.0, momentum=0.9)
    mapping = torch.arange(CLASSES, device=DEVICE)
    inputs = (images.float() / 255 - MEAN) / STD

    def logits(batch: Tensor) -> Tensor:
        embedding = functional.normalize(network.encode_image(prompt(batch)), dim=1)
        return network.logit_scale.exp() * embedding @ texts.T

    def epoch() -> None:
        for batch, some in zip(inputs.split(BATCH), labels.split(BATCH), strict=True):
            loss = functional.cross_entropy(logits(batch)[:, mapping], some)
            sgd.zero_grad()
            loss.backward()
            sgd.step()

    @torch.no_grad()
    def test() -> None:
        for batch in inputs.split(BATCH):
            logits(batch).argmax(1)

    epoch(), test()
    return least(lambda: seconds(epoch)), least(lambda: seconds(test))


def engine(classifier: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float, float, PromptedNetwork]:
    """Return the time of an epoch of one run, that of a pass over the images, and that of an epoch of a pack of all
    methods, by the engine as a job of the workflow runs it."""
    protocol = RunClipProtocol(
        **{"epochs": 1, "learning_rate": 40.0, "momentum": 0.9, "border": BORDER, "batch_size": BATCH},
        **{"shuffle": True, "test_batch_size": 128, "mapping_interval": 1, "precision": "auto"},
        **{"canvas": images.shape[-1], "interpolation": "bicubic"},
    )
    arguments = for_inference(classifier, DEVICE), MEAN, STD, protocol
    with TemporaryDirectory() as plans:
        prompted = PromptedNetwork(*arguments, choose(*arguments, plans, 8 * 2**30))

    def epoch(methods: tuple[str, ...]) -> None:
        runs = [(method, range(len(images))) for method in methods]
        list(train_prompts(prompted, images, labels, CLASSES, runs, 0, protocol))

    def test() -> None:
        prompted.test_logits(images, prompted.new_prompt())

    epoch(("rlm",)), test()
    one = least(lambda: seconds(lambda: epoch(("rlm",))))
    return one, least(lambda: seconds(test)), least(lambda: seconds(lambda: epoch(METHODS))), prompted


def compare(name: str, count: int) -> list[dict]:
    """Measure one network. Returns the records."""
    torch.manual_seed(0)
    network = build(f"clip/{name}").requires_grad_(False).to(DEVICE)
    canvas, gmacs, _ = clip.arithmetic(name)
    images = torch.randint(0, 256, (count, 3, canvas, canvas), dtype=torch.uint8, device=DEVICE)
    labels = torch.arange(count, device=DEVICE) % CLASSES
    texts = functional.normalize(
        torch.randn(TEMPLATES * CLASSES, network.text_projection.shape[1], device=DEVICE), dim=1
    )
    step, test = published(network, texts, images, labels)
    classifier = (
        clip.TextClassifier(clip.image_tower(network), texts, clip.scale(network)).requires_grad_(False).eval()
    )
    ours, our_test, pack, prompted = engine(classifier, images, labels)
    gflop = 4 * gmacs * (canvas / 224) ** 2  # forward and backward to the image
    rate = peak_rate(prompted.dtype if prompted.precision == "bf16" else torch.float32)
    about = {"network": name, "canvas": canvas, "device": machine(), "precision": prompted.precision}
    rows = [
        ("training step, an image", step / count, ours / count),
        ("test, an image", test / count, our_test / count),
        # flm and ilm map once before their first epoch
        ("pack of RLM, FLM and ILM, an epoch, an image", (3 * step + 2 * test) / count, pack / count),
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
    lines = [f"Measured on {records[0]['device']}; engine {records[0]['precision']}, published loop fp32.", ""]
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
