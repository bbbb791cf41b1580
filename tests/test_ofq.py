"""OFQ's quantised vision transformers: files by its code's rules, and what they compute by its formulas.

The plain reimplementation below was held once, by hand, against the published code itself (github.com/nbasyl/OFQ at
7ed37d1, on timm 1.0.31 and torchvision 0.29.2, with "cpu" for "cuda"): networks of width 12 and two blocks (a stage),
images of 224 pixels, 2, 3 and 4 bits, steps as it initialises them, scattered by 40 %. All keys and shapes are the
same. In float64, logits (of up to 0.3 to 0.9) differ by 2e-16 at most, their gradients (of up to 2e-4 to 2e-3) by
2e-18. In float32, logits of `hiddencost.networks.ofq` are its to the bit.
"""

import argparse
from itertools import product

import pytest
import timm
import torch
from torchvision.models.swin_transformer import SwinTransformer

from hiddencost.catalog import checkpoint, checkpoints
from hiddencost.catalog.entries import CheckpointLayout
from hiddencost.compression.controls import random_network, shuffle
from hiddencost.compression.gate import verify
from hiddencost.compression.make import compress
from hiddencost.compression.photos import Recognised
from hiddencost.files import sha256_file, write_json
from hiddencost.networks import architectures, backbones, inference, inputs, ofq, quantisers
from hiddencost.networks import checkpoint as importing
from hiddencost.networks.formats.registry import READERS
from hiddencost.prompting.precision import in_bf16

WIDTH, HEADS, CLASSES = 8, 2, 5
DEIT = {"side": 32, "patch": 16}
SWIN = {"side": 16, "patch": 4, "window": 2, "heads": (1, 2)}  # maps of 4 x 4, two shifted blocks, and of 2 x 2


def parameter(shape, scale=0.3):
    return scale * torch.randn(shape)


def step(shape, scale=0.4):
    return scale * (0.5 + torch.rand(shape))


def around(name, channels, steps, of_inputs=0.4):
    """What stands around a quantised input."""
    biases = {f"{name}.{move}.bias": parameter(channels, 0.1) for move in ("move_b4", "move_aft")}
    return biases | {f"{name}.input_quant_fn.s": step(steps, of_inputs)}


def layer(name, outputs, channels, tokens):
    weights = {f"{name}.weight": parameter((outputs, channels)), f"{name}.bias": parameter(outputs)}
    return weights | {f"{name}.statsq_fn.clip_val": torch.tensor([2.0])} | around(name, channels, tokens)


def outer(name, shape, channels, steps, of_inputs):
    weights = {f"{name}.weight": parameter(shape), f"{name}.bias": parameter(shape[0])}
    return weights | {f"{name}.lsqw_fn.s": step(shape[0], 0.01)} | around(name, channels, steps, of_inputs)


def images(name, width, side, patch):
    state = outer(name, (width, 3, patch, patch), side * side, 3, 0.02)
    return state | {f"{name}.input_quant_fn.signed": torch.ones(1)}


def norm(name, width):
    return {f"{name}.weight": 1 + parameter(width, 0.1), f"{name}.bias": parameter(width, 0.1)}


def attention(name, width, heads, tokens):
    state = {f"{name}.{one}.weight": parameter((width, width)) for one in "qkv"} | {
        f"{name}.v.bias": parameter(width)
    }
    state |= {f"{name}.{kind}_quant.clip_val": torch.tensor([2.0]) for kind in ("qk", "v")}
    for kind, channels in (("qkx", heads * width), ("v", width)):
        state |= {f"{name}.move_{kind}_{when}.bias": parameter(channels, 0.1) for when in ("b4", "aft")}
    steps = {"qkx": tokens * heads, "v": width, "softmax": tokens}
    state |= {f"{name}.quan_a_{kind}_fn.s": step(number, 0.2) for kind, number in steps.items()}
    return state | around(f"{name}.quant_x_4_qkv", width, tokens) | layer(f"{name}.proj", width, width, tokens)


def block(name, width, heads, tokens, columns):
    state = (
        norm(f"{name}.norm1", width) | norm(f"{name}.norm2", width) | attention(f"{name}.attn", width, heads, tokens)
    )
    return (
        state
        | layer(f"{name}.mlp.fc1", 4 * width, width, columns)
        | layer(f"{name}.mlp.fc2", width, 4 * width, columns)
    )


def deit_state(distilled, side, patch, width=WIDTH, heads=HEADS, classes=CLASSES):
    names = ["cls_token", "dist_token"] if distilled else ["cls_token"]
    tokens = len(names) + (side // patch) ** 2
    state = {name: parameter((1, 1, width)) for name in names} | {"pos_embed": parameter((1, tokens, width))}
    state |= images("patch_embed.proj", width, side, patch) | norm("norm", width)
    for index in range(2):
        state |= block(f"blocks.{index}", width, heads, tokens, tokens)
    for name in ("head", "head_dist")[: len(names)]:
        state |= outer(name, (classes, width), width, 1, 0.02)
    return state


def swin_state(side, patch, window, heads, width=WIDTH, classes=CLASSES):
    state = images("features.0.0", width, side, patch) | norm("features.0.2", width)
    side, places = side // patch, list(product(range(window), repeat=2))
    offsets = [
        (y - v + window - 1) * (2 * window - 1) + x - u + window - 1 for (y, x), (v, u) in product(places, places)
    ]
    for stage, number in enumerate(heads):
        for index in range(2):
            name = f"features.{2 * stage + 1}.{index}"
            state |= block(name, width, number, window**2, side)
            state[f"{name}.attn.relative_position_bias_table"] = parameter(((2 * window - 1) ** 2, number))
            state[f"{name}.attn.relative_position_index"] = torch.tensor(offsets)
        if stage + 1 < len(heads):
            name, side = f"features.{2 * stage + 2}", side // 2
            state |= norm(f"{name}.norm", 4 * width) | layer(f"{name}.reduction", 2 * width, 4 * width, side)
            width *= 2
    return state | norm("norm", width) | outer("head", (classes, width), width, 1, 0.02)


def published(state):
    """What timm's CheckpointSaver writes of a training on several devices."""
    parallel = {f"module.{key}": tensor for key, tensor in state.items()}
    rest = {"epoch": 29, "arch": "deit_tiny_distilled_patch16_224", "optimizer": {"state": {}, "param_groups": []}}
    return rest | {"state_dict": parallel, "version": 2, "args": argparse.Namespace(wq_bitw=2), "metric": 64.33}


class Plain:
    """The formulas, of one image at a time, in float64: see the published modules that each names."""

    def __init__(self, state, bits):
        self.p = {key: tensor.double() if tensor.is_floating_point() else tensor for key, tensor in state.items()}
        self.bits = bits

    def rounded(self, x):
        return x.detach().round() + (x - x.detach())

    def lsq(self, x, s, bits, positive=False):  # LsqQuantizer
        low, high = (0, 2**bits - 1) if positive else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        return self.rounded((x / s).clamp(low, high)) * s

    def statsq(self, weight):  # StatsQuantizer
        rows, n = [], 2 ** (self.bits - 1)
        for row in weight:
            scale = 2 * row.abs().sum() / len(row)
            rows.append(scale * (torch.round((row / scale).clamp(-1, 1 - 1e-6) * n - 0.5) + 0.5) / n)
        return torch.stack(rows)

    def input(self, name, x, s, bits, positive=False):  # LSQ_input
        return self.lsq(x + self.p[f"{name}.move_b4.bias"], s, bits, positive) + self.p[f"{name}.move_aft.bias"]

    def linear(self, name, x, positive=False):  # QLinear
        x = self.input(name, x, self.p[f"{name}.input_quant_fn.s"][:, None], self.bits, positive)
        return x @ self.statsq(self.p[f"{name}.weight"]).T + self.p[f"{name}.bias"]

    def head(self, name, x):  # LSQ_QLinear4head
        x = self.input(name, x, self.p[f"{name}.input_quant_fn.s"], 8)
        return (
            x @ self.lsq(self.p[f"{name}.weight"], self.p[f"{name}.lsqw_fn.s"][:, None], 8).T + self.p[f"{name}.bias"]
        )

    def patches(self, name, image):  # LSQ_QConv2d: [rows, columns, channels]
        weight = self.p[f"{name}.weight"]
        weight = self.lsq(weight, self.p[f"{name}.lsqw_fn.s"][:, None, None, None], 8)
        side, patch = image.shape[-1], weight.shape[-1]
        before, after = (self.p[f"{name}.{move}.bias"].reshape(side, side) for move in ("move_b4", "move_aft"))
        image = self.lsq(image + before, self.p[f"{name}.input_quant_fn.s"][:, None, None], 8) + after
        cut = image.reshape(3, side // patch, patch, side // patch, patch)
        return torch.einsum("cypxq,ocpq->yxo", cut, weight) + self.p[f"{name}.bias"]

    def norm(self, name, x, eps):
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + eps).sqrt()
        return x * self.p[f"{name}.weight"] + self.p[f"{name}.bias"]

    def mlp(self, name, x):  # QMLP
        x = self.linear(f"{name}.fc1", x)
        return self.linear(f"{name}.fc2", 0.5 * x * (1 + torch.erf(x / 2**0.5)), positive=True)

    def attention(self, name, x, heads, added):  # QAttention_qkreparam, x: [tokens, channels]
        p, (tokens, width) = self.p, x.shape
        inner = width // heads
        x = self.input(f"{name}.quant_x_4_qkv", x, p[f"{name}.quant_x_4_qkv.input_quant_fn.s"][:, None], self.bits)
        v = x @ self.statsq(p[f"{name}.v.weight"]).T + p[f"{name}.v.bias"] + p[f"{name}.move_v_b4.bias"]
        v = self.lsq(v, p[f"{name}.quan_a_v_fn.s"], self.bits) + p[f"{name}.move_v_aft.bias"]
        out = []
        for head in range(heads):
            rows, whole = slice(head * inner, (head + 1) * inner), slice(head * width, (head + 1) * width)
            both = self.statsq(p[f"{name}.q.weight"][rows].T @ p[f"{name}.k.weight"][rows])
            z = x @ both.T + p[f"{name}.move_qkx_b4.bias"][whole]
            steps = p[f"{name}.quan_a_qkx_fn.s"].reshape(tokens, heads)[:, head, None]
            z = self.lsq(z, steps, self.bits) + p[f"{name}.move_qkx_aft.bias"][whole]
            chosen = torch.softmax(x @ z.T / inner**0.5 + added[head], 1)
            chosen = self.lsq(chosen, p[f"{name}.quan_a_softmax_fn.s"][:, None], self.bits, positive=True)
            out.append(chosen @ v[:, rows])
        return self.linear(f"{name}.proj", torch.cat(out, 1))

    def windows(self, name, x, heads, window, shift):  # QAttention_swin_qkreparam, x: [rows, columns, channels]
        side, new = len(x), torch.zeros_like(x)
        shift = 0 if window >= side else shift
        table, places = self.p[f"{name}.relative_position_bias_table"], list(product(range(window), repeat=2))
        index = self.p[f"{name}.relative_position_index"].reshape(window**2, window**2)
        for top, left in product(range(0, side, window), repeat=2):
            at = [(top + y + shift, left + x + shift) for y, x in places]
            apart = torch.tensor(
                [[[i >= side for i in one] != [i >= side for i in other] for other in at] for one in at]
            )
            rows, columns = (torch.tensor([place[axis] % side for place in at]) for axis in (0, 1))
            added = [table[index, head] - 100.0 * apart for head in range(heads)]
            new = new.index_put((rows, columns), self.attention(name, x[rows, columns], heads, added))
        return new

    def deit(self, image, heads=HEADS):
        tokens = ["cls_token", "dist_token"] if "dist_token" in self.p else ["cls_token"]
        x = torch.cat([*(self.p[name][0] for name in tokens), self.patches("patch_embed.proj", image).flatten(0, 1)])
        x = x + self.p["pos_embed"][0]
        for index in range(2):
            name = f"blocks.{index}"
            x = x + self.attention(f"{name}.attn", self.norm(f"{name}.norm1", x, 1e-6), heads, [0] * heads)
            x = x + self.mlp(f"{name}.mlp", self.norm(f"{name}.norm2", x, 1e-6))
        x = self.norm("norm", x, 1e-6)
        return sum(self.head(name, x[i]) for i, name in enumerate(("head", "head_dist")[: len(tokens)])) / len(tokens)

    def swin(self, image, window=SWIN["window"], heads=SWIN["heads"]):
        x = self.norm("features.0.2", self.patches("features.0.0", image), 1e-5)
        for stage, number in enumerate(heads):
            if stage:
                name = f"features.{2 * stage}"
                x = torch.cat([x[0::2, 0::2], x[1::2, 0::2], x[0::2, 1::2], x[1::2, 1::2]], -1)
                x = self.linear(f"{name}.reduction", self.norm(f"{name}.norm", x, 1e-5))
            for index in range(2):
                name, shift = f"features.{2 * stage + 1}.{index}", index * (window // 2)
                x = x + self.windows(f"{name}.attn", self.norm(f"{name}.norm1", x, 1e-5), number, window, shift)
                x = x + self.mlp(f"{name}.mlp", self.norm(f"{name}.norm2", x, 1e-5))
        return self.head("head", self.norm("norm", x, 1e-5).mean((0, 1)))


def made(kind):
    """The weights of a file, the formulas' name, and the empty network of a number of bits."""
    torch.manual_seed(0)
    if kind == "swin":
        sizes = [SWIN["patch"]] * 2, WIDTH, [2, 2], list(SWIN["heads"]), [SWIN["window"]] * 2
        return (
            swin_state(**SWIN),
            Plain.swin,
            lambda bits: ofq.swin(SwinTransformer(*sizes, num_classes=CLASSES), bits, 16),
        )
    classes = {"plain": timm.models.VisionTransformer, "distilled": timm.models.deit.VisionTransformerDistilled}
    settings = {"img_size": 32, "embed_dim": WIDTH, "depth": 2, "num_heads": HEADS, "num_classes": CLASSES}
    state = deit_state(kind == "distilled", **DEIT)
    return state, Plain.deit, lambda bits: ofq.deit(classes[kind](**settings), bits, 32)


def read(state, folder):
    torch.save(published(state), folder / "ofq.pth.tar")
    return READERS["ofq"]({"weights": folder / "ofq.pth.tar"})


def loaded(kind, bits, folder):
    state, formulas, empty = made(kind)
    network = empty(bits).eval().requires_grad_(False)
    backbones.load_strictly(network, read(state, folder).state, "the file")
    return network, lambda image: formulas(Plain(state, bits), image)


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("kind", ["plain", "distilled", "swin"])
def test_a_network_of_a_published_file_computes_what_the_formulas_say_and_so_do_its_gradients(kind, bits, tmp_path):
    network, formulas = loaded(kind, bits, tmp_path)
    side = 16 if kind == "swin" else 32
    images = torch.randn(2, 3, side, side, dtype=torch.float64, requires_grad=True)
    expected = torch.stack([formulas(image) for image in images])
    weights = torch.randn_like(expected)
    (gradient,) = torch.autograd.grad((expected * weights).sum(), images)
    assert expected.std() > 0.1
    assert (gradient != 0).float().mean() > 0.3  # of pixels; the others are clamped somewhere
    logits = network.double()(images)
    assert torch.allclose(logits, expected, atol=1e-5)  # the head's weights are float32
    assert torch.allclose(torch.autograd.grad((logits * weights).sum(), images)[0], gradient, atol=1e-5)


@pytest.mark.parametrize("kind", ["distilled", "swin"])
def test_a_network_computes_the_same_for_inference_and_nearly_in_bfloat16(kind, tmp_path):
    network, _ = loaded(kind, 4, tmp_path)
    images = torch.randn(4, 3, *[16 if kind == "swin" else 32] * 2)
    expected, faster = network(images), inference.for_inference(network, torch.device("cpu"))
    assert isinstance(faster, torch.fx.GraphModule)
    assert torch.equal(faster(images), expected)
    low = in_bf16(faster)(images.bfloat16())
    assert torch.corrcoef(torch.stack([low.flatten(), expected.flatten()]))[0, 1] > 0.8  # few values, each rounded


def test_weights_of_bfloat16_keep_to_their_levels():
    weight = torch.linspace(-3, 3, 64)[None]
    for bits in (2, 3, 4):
        clip = torch.full((1,), 2.0)
        levels = quantisers.statsq(weight.bfloat16(), bits, clip.bfloat16()).unique()
        assert len(levels) == 2**bits
        assert torch.allclose(levels.float(), quantisers.statsq(weight, bits, clip).unique(), rtol=0.01)


def sized(network):
    """Say of a network that it takes images of 32 pixels alone, as those of timm do."""
    network.pretrained_cfg = {"input_size": (3, 32, 32), "fixed_input_size": True}
    return network


def without(key):
    return lambda state: state.pop(key)


def changed(key, value):
    return lambda state: state.update({key: value})


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (without("blocks.1.attn.quan_a_qkx_fn.s"), "missing key blocks.1.attn.quan_a_qkx_fn.s$"),
        (without("blocks.0.mlp.fc1.statsq_fn.clip_val"), "missing key blocks.0.mlp.fc1.statsq_fn.clip_val$"),
        (without("head_dist.lsqw_fn.s"), "missing key head_dist.lsqw_fn.s$"),
        (without("head.weight"), "missing key head.weight$"),
        (changed("blocks.0.attn.qkv.weight", torch.ones(2)), "unexpected key blocks.0.attn.qkv.weight$"),
        (
            changed("head.lsqw_fn.s", torch.ones(3)),
            r"head.lsqw_fn.s has shape \[3\], expected \[5\] floats, one a class$",
        ),
        (changed("pos_embed", torch.ones(1, 5, 8)), r"pos_embed has shape \[1, 5, 8\], expected \[1, 6, 8\]$"),
        (changed("blocks.0.attn.qk_quant.clip_val", torch.ones(1)), r"qk_quant.clip_val is \[1.0\], expected \[2\]$"),
        (changed("patch_embed.proj.input_quant_fn.signed", torch.zeros(1)), r"signed is \[0.0\], expected \[1\]$"),
        (
            lambda state: [state.pop(key) for key in list(state) if "qk_quant" in key],
            "no attention with one quantiser",
        ),
    ],
)
def test_a_file_that_is_not_as_the_code_writes_it_is_refused_in_one_line(edit, message, tmp_path):
    state, _, empty = made("distilled")
    edit(state)
    with pytest.raises(ValueError, match=message) as error:
        backbones.load_strictly(empty(2), read(state, tmp_path).state, "the file")
    assert "\n" not in str(error.value)


def test_a_file_of_the_other_deit_is_told_by_its_distillation_token(tmp_path):
    network = made("plain")[2](2)
    with pytest.raises(ValueError, match="unexpected key dist_token"):
        backbones.load_strictly(network, read(made("distilled")[0], tmp_path).state, "the file")


def test_a_checkpoint_is_imported_with_every_key_counted_though_no_weight_is_zero(tmp_path, monkeypatch):
    state, formulas, empty = made("distilled")
    monkeypatch.setitem(architectures.ARCHITECTURES, "tiny", lambda: sized(empty(3)))
    read(state, tmp_path)
    path = str(tmp_path / "ofq.pth.tar")
    write_json(
        tmp_path / "fetched.json", {"failed": None, "files": {"weights": {"path": path, "sha256": sha256_file(path)}}}
    )
    entry = checkpoint("deit-tiny-distilled-ofq-w3a3")
    layout = CheckpointLayout.model_validate(entry.layout().model_dump() | {"architecture": "tiny"})
    importing.import_checkpoint("tiny", layout, tmp_path / "fetched.json", tmp_path / "backbone")
    network, masks, manifest = backbones.load(tmp_path / "backbone")
    assert (manifest.compression, manifest.sparsity_declared, masks) == ("ofq", 0.0, {})
    assert manifest.report == {"keys": len(state), "constants": 11, "quantised_where_read": 2}
    assert manifest.keys == len(state) - 2
    compress(tmp_path / "backbone", tmp_path / "as-it-is", None, None)
    report = verify(tmp_path / "as-it-is", {"sparsity_tolerance": 0.001}, lambda *_: Recognised(20, 20, "photos", 0))
    assert (report.passed, report.reasons, report.sparsity_measured) == (True, [], 0.0)
    image = torch.randn(3, 32, 32)
    expected = formulas(Plain(state, 3), image.double()).float()
    assert torch.allclose(network(image[None])[0], expected, atol=1e-3)


def test_published_networks_take_images_of_224_pixels_alone():
    names = {name: entry.architecture for name, entry in checkpoints().items() if entry.compression == "ofq"}
    assert len(names) == 9
    assert set(names.values()) == ofq.ARCHITECTURES.keys() <= inputs.SIDES.keys()
    for architecture in names.values():
        assert inputs.why_not_published(architecture, 224) is None
        assert inputs.why_not_published(architecture, 160) == (
            f"the network {architecture} takes images of 224 pixels alone, and the canvas has 160: with "
            "protocol.canvas: native each network has its own"
        )
    assert inputs.why_not("ofq_swin_tiny_w2a2", 224) is None
    assert "of 224 pixels alone" in inputs.why_not("ofq_deit_tiny_w2a2", 160)


def test_a_network_that_never_learned_tells_images_apart_and_gives_prompts_a_gradient(monkeypatch):
    monkeypatch.setitem(architectures.ARCHITECTURES, "tiny", lambda: sized(made("distilled")[2](2)))
    network = random_network("tiny")
    images = torch.randn(8, 3, 32, 32, requires_grad=True)
    logits = network(images)
    assert logits.std(0).min() > 0.1 * logits.std()
    (gradient,) = torch.autograd.grad(logits.logsumexp(1).sum(), images)
    assert (gradient != 0).float().mean() > 0.3
    assert torch.equal(logits, random_network("tiny")(images))


def test_a_shuffled_network_has_none_of_its_answers_left(tmp_path):
    network, _ = loaded("swin", 3, tmp_path)
    images = torch.randn(8, 3, 16, 16)
    before = network(images)
    shuffle(network, {})
    both = torch.stack([(logits - logits.mean(0)).flatten() for logits in (before, network(images))])
    assert torch.corrcoef(both)[0, 1].abs() < 0.5
