"""CLIP: its networks, layouts, texts and compression, and the engine on it, against plain reimplementations."""

import json
import math

import numpy as np
import open_clip
import pytest
import reference
import tiny_clip
import torch
from PIL import Image
from tiny_clip import CANVAS, upop_file, upop_state
from torch.nn import functional
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from hiddencost import catalog
from hiddencost.catalog.entries import CheckpointLayout, Preprocessing
from hiddencost.compression.gate import verify
from hiddencost.compression.make import compress
from hiddencost.compression.photos import Recognised, imagenet_photos
from hiddencost.datasets.prepare import pixels
from hiddencost.files import read_json, write_json
from hiddencost.networks import backbones, build
from hiddencost.networks.arithmetic import count_multiply_adds
from hiddencost.networks.checkpoint import import_checkpoint
from hiddencost.networks.clip import model
from hiddencost.networks.clip.texts import (
    classifier_of_texts,
    expand_templates,
    read_texts,
)
from hiddencost.networks.clip.words import class_words
from hiddencost.networks.families import FAMILIES
from hiddencost.networks.formats.registry import READERS
from hiddencost.networks.layers import layer_weights
from hiddencost.prompting.engine import FrozenNetwork, Plan, PromptedNetwork
from hiddencost.prompting.images import fill
from hiddencost.prompting.plan import fit_to_device
from hiddencost.prompting.schedule import stream
from hiddencost.prompting.train import train_prompts
from hiddencost.study.recipes import PUBLISHED_TEMPLATES, RunClipProtocol

CPU = torch.device("cpu")
CLASSES = ["airplane", "polka-dotted", "AnnualCrop", "sea_horse"]
TEMPLATES = ["This is a photo of a {}.", "a drawing of the {}.", "graffiti of a {}."]
PROTOCOL = {
    **{"epochs": 3, "batch_size": 5, "shuffle": True, "test_batch_size": 8, "learning_rate": 4.0, "momentum": 0.9},
    **{"border": 7, "mapping_interval": 1, "precision": "fp32", "canvas": CANVAS, "interpolation": "bicubic"},
}
ENTRY = {
    **{"preprocessing": tiny_clip.PREPROCESSING, "stem": None, "upstream_top1": None},
    **{"sparsity_over": "towers", "format": "open_clip"},
}
GATE = {"sparsity_tolerance": 0.005}


@pytest.fixture(scope="module")
def architecture(tmp_path_factory):
    return tiny_clip.configure(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def network(architecture):
    return tiny_clip.network(architecture)


@pytest.fixture
def imported(tmp_path, architecture, network):
    """Import a file of the tiny CLIP as a backbone, and return its folder."""

    def make(layout="open_clip", name="made"):
        path = tmp_path / f"{name}.pth"
        if layout == "open_clip":
            tiny_clip.save_open_clip(network, path)
        else:
            torch.save(upop_file(upop_state(network)[0]), path)
        files = {"weights": {"path": str(path), "sha256": clip_digest(path)}}
        write_json(tmp_path / f"{name}.json", {"failed": None, "files": files})
        pruned = {"compression": "upop", "sparsity": None} if layout == "upop" else {}
        told = ENTRY | {"architecture": architecture, "format": layout} | pruned
        import_checkpoint(name, CheckpointLayout.model_validate(told), tmp_path / f"{name}.json", tmp_path / name)
        return tmp_path / name

    return make


def clip_digest(path):
    from hiddencost.files import sha256_file

    return sha256_file(path)


def plain_attention(block, x, head, mask=None):
    """A block's attention written out: [N, L, width], heads of `head` dimensions each."""
    count, length, width = x.shape
    heads = width // 64
    q, k, v = (x @ block.attn.in_proj_weight.T + block.attn.in_proj_bias).chunk(3, dim=-1)
    found = torch.empty(count, length, heads * head, dtype=x.dtype)
    for one in range(heads):
        part = slice(one * head, (one + 1) * head)
        scores = q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(head)
        scores = scores if mask is None else scores + mask
        found[..., part] = scores.softmax(-1) @ v[..., part]
    return found @ block.attn.out_proj.weight.T + block.attn.out_proj.bias


def plain_block(block, x, head, mask=None):
    def norm(layer, y):
        return functional.layer_norm(y, (y.shape[-1],), layer.weight, layer.bias, 1e-5)

    x = x + plain_attention(block, norm(block.ln_1, x), head, mask)
    hidden = norm(block.ln_2, x) @ block.mlp.c_fc.weight.T + block.mlp.c_fc.bias
    hidden = hidden * torch.sigmoid(1.702 * hidden)
    return x + hidden @ block.mlp.c_proj.weight.T + block.mlp.c_proj.bias


def plain_image(made, images, heads):
    """OpenAI's image encoder written out: normalised images [N, 3, S, S] to embeddings [N, D]."""
    visual = made.visual
    patches = functional.conv2d(images, visual.conv1.weight, stride=16).flatten(2).transpose(1, 2)
    x = torch.cat([visual.class_embedding.expand(len(images), 1, -1), patches], 1) + visual.positional_embedding
    x = functional.layer_norm(x, (128,), visual.ln_pre.weight, visual.ln_pre.bias)
    for block, head in zip(visual.transformer.resblocks, heads, strict=True):
        x = plain_block(block, x, head)
    return functional.layer_norm(x[:, 0], (128,), visual.ln_post.weight, visual.ln_post.bias) @ visual.proj


def plain_text(made, tokens, heads):
    """OpenAI's text encoder written out."""
    x = made.token_embedding.weight[tokens] + made.positional_embedding
    mask = torch.full((77, 77), -math.inf, dtype=x.dtype).triu(1)
    for block, head in zip(made.transformer.resblocks, heads, strict=True):
        x = plain_block(block, x, head, mask)
    x = functional.layer_norm(x, (64,), made.ln_final.weight, made.ln_final.bias)
    return x[torch.arange(len(tokens)), tokens.argmax(1)] @ made.text_projection


# ------------------------------------------------------------------------------------------------- the network


@pytest.mark.parametrize("kind", ["", "-resnet"])
def test_the_lean_classifier_is_the_network_up_to_rounding(architecture, kind):
    architecture += kind
    made = tiny_clip.network(architecture)
    for norm in (module for module in made.visual.modules() if isinstance(module, torch.nn.BatchNorm2d)):
        norm.running_mean.normal_(), norm.running_var.uniform_(0.5, 2), norm.weight.uniform_(0.5, 2)
    images = torch.randn(2, 3, model.image_size(made), model.image_size(made), generator=stream(0, "images"))
    classifier = classifier_of_texts(made, ["a cat", "a dog", "a house"], model.configuration_of(architecture))
    classifier, images = classifier.double(), images.double()
    lean = FAMILIES["clip"].for_inference(classifier, CPU)
    kinds = {type(module).__name__ for module in lean.modules()}
    assert not kinds & {"MultiheadAttention", "BatchNorm2d", "QuickGELU"}
    torch.testing.assert_close(lean(images), classifier(images), rtol=1e-9, atol=1e-9)


def test_logits_are_scaled_cosines_in_full_precision_also_behind_a_bf16_tower(network, architecture):
    name = model.configuration_of(architecture)
    texts = ["a cat", "a dog"]
    images = torch.randn(3, 3, CANVAS, CANVAS)
    embeddings = network.encode_image(images), network.encode_text(clip_tokens(architecture, texts))
    cosines = functional.cosine_similarity(embeddings[0][:, None], embeddings[1][None], dim=2)
    classifier = classifier_of_texts(network, texts, name).requires_grad_(False)
    torch.testing.assert_close(classifier(images), math.exp(3.0) * cosines, rtol=1e-4, atol=1e-4)
    from hiddencost.prompting.precision import in_bf16

    low = in_bf16(FAMILIES["clip"].for_inference(classifier, CPU))
    assert low(images.bfloat16()).dtype == torch.float32
    torch.testing.assert_close(low(images.bfloat16()), classifier(images), rtol=0, atol=0.5)


def clip_tokens(architecture, texts):
    return open_clip.get_tokenizer(model.configuration_of(architecture))(texts)


def test_towers_are_those_of_openai_written_out(network, architecture):
    made = tiny_clip.network(architecture).double()
    images = torch.randn(2, 3, CANVAS, CANVAS, dtype=torch.float64)
    torch.testing.assert_close(made.encode_image(images), plain_image(made, images, [64, 64]))
    tokens = clip_tokens(architecture, ["a photo of a cat.", "graffiti"])
    torch.testing.assert_close(made.encode_text(tokens), plain_text(made, tokens, [64, 64]))


def test_names_of_configurations_and_tokenizers(architecture):
    with pytest.raises(ValueError, match="open_clip has no such configuration"):
        build.build("clip/ViT-B-31")
    with pytest.raises(ValueError, match="'clip/ViT-B-16-SigLIP': its texts go through a tokenizer of Hugging Face"):
        build.build("clip/ViT-B-16-SigLIP")
    entry = catalog.checkpoint("openclip-vit-b-32.openai")
    assert entry.architecture == "clip/ViT-B-32-quickgelu"  # these weights want it
    assert entry.files["weights"].sources[0].hf == "timm/vit_base_patch32_clip_224.openai"
    gmacs, parameters = count_multiply_adds(entry.architecture)
    assert (round(gmacs, 1), parameters) == (4.4, 151_277_313)
    with pytest.raises(ValueError, match=r"near it: openclip-vit-b-32\.openai"):
        catalog.checkpoint("openclip-vit-b-31.openai")


# ------------------------------------------------------------------------------------------------- UPop


def test_upop_is_read_with_narrow_blocks_that_compute_what_it_does(imported, network, architecture):
    folder = imported("upop")
    made, masks, manifest = backbones.load(folder)
    assert (masks, len(manifest.widths)) == ({}, 4)
    assert manifest.widths["visual.transformer.resblocks.0"] == [40, 300]
    assert manifest.report["of_its_training"] > 10
    state, _ = upop_state(network)
    images = torch.randn(2, 3, CANVAS, CANVAS, dtype=torch.float64)
    made = made.double()
    torch.testing.assert_close(made.encode_image(images), plain_image(made, images, [40, 64]))
    tokens = clip_tokens(architecture, ["a photo of a cat."])
    torch.testing.assert_close(made.encode_text(tokens), plain_text(made, tokens, [20, 33]))
    assert all(torch.equal(made.state_dict()[key], tensor.double()) for key, tensor in state.items())
    dense, own = (sum(one.tensor.numel() for one in layer_weights(each).values()) for each in (network, made))
    compress(folder, folder.with_name("out"), None, None)
    result = verify(folder.with_name("out"), GATE, lambda *_: Recognised(20, 20, "photos", 0))
    assert result.passed, result.reasons
    assert result.sparsity_measured == pytest.approx(1 - own / dense)
    assert 0.2 < result.sparsity_measured == manifest.sparsity_declared


def test_a_compressed_block_is_the_masked_one_but_for_the_scale_of_its_scores(network):
    """UPop's search multiplies by masks; what is masked is gone afterwards, and the scores' root with it."""
    _, kept = upop_state(network)
    name = "visual.transformer.resblocks.0"
    attention, _ = kept[name]
    import copy

    masked = copy.deepcopy(network.get_submodule(name)).double()
    q, rest = masked.attn.in_proj_weight[:128], masked.attn.in_proj_weight[128:]
    every = attention.repeat(2)
    q, rest = q * every[:, None] * math.sqrt(64 / 40), rest * every.repeat(2)[:, None]
    masked.attn.in_proj_weight.copy_(torch.cat([q, rest]))
    bias = masked.attn.in_proj_bias * every.repeat(3)
    masked.attn.in_proj_bias.copy_(torch.cat([bias[:128] * math.sqrt(64 / 40), bias[128:]]))
    narrow = copy.deepcopy(network.get_submodule(name))
    model.narrow(narrow, 40, 512)
    state, _ = upop_state(network)
    narrow.attn.load_state_dict({key: state[f"{name}.attn.{key}"] for key in narrow.attn.state_dict()})
    narrow = narrow.double()
    x = torch.randn(2, 5, 128, dtype=torch.float64)
    torch.testing.assert_close(narrow.attention(x), masked.attention(x))


def spoil_rows(state):
    key = "visual.transformer.resblocks.0.attn.in_proj_weight"
    state[key] = state[key][:-1]


def spoil_neurons(state):
    key = "transformer.resblocks.1.mlp.c_proj.weight"
    state[key] = state[key][:, :-2]


def lose(key):
    return lambda state: state.pop(key)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (spoil_rows, r"resblocks\.0\.attn\.in_proj_weight has shape \[239, 128\], expected \[234, 128\], of 2 heads"),
        (spoil_neurons, r"resblocks\.1\.mlp\.c_proj\.weight has shape \[64, 109\], expected \[64, 111\]"),
        (lose("visual.transformer.resblocks.1.mlp.c_fc.weight"), r"resblocks\.1\.mlp\.c_fc\.weight is missing"),
        (lose("visual.proj"), r"visual_m\.proj has shape \[128, 24\], its original visual\.proj nothing"),
        (lose("visual.transformer.resblocks.0.attn.in_proj_weight"), r"its original .*resblocks\.0.* nothing"),
        (lose("logit_scale"), "missing key logit_scale"),
        (lambda state: state.update(extra=torch.ones(1)), "unexpected key extra"),
        (lambda state: state.update(visual_m=torch.ones(1)), "unexpected key visual_m"),
        (lambda state: state.update({"visual_m.odd": torch.ones(1)}), r"visual_m\.odd has shape \[1\], its original"),
        *(
            (
                lambda state, name=name: state.update({name: torch.tensor(1.0)}),
                rf"{name} has shape \[\], expected {one}",
            )
            for name, one in {
                "visual.transformer.resblocks.0.attn.in_proj_weight": "2 dimensions, none of 0",
                "visual.transformer.resblocks.0.attn.in_proj_bias": "1 dimensions, none of 0",
                "visual.transformer.resblocks.0.mlp.c_proj.weight": "2 dimensions, none of 0",
            }.items()
        ),
        (lambda state: state.clear() or state.update(image_queue=torch.ones(1)), "no block of a CLIP"),
    ],
)
def test_what_is_not_upops_layout_is_refused(tmp_path, network, architecture, spoil, reason):
    content = upop_file(upop_state(network)[0])
    spoil(content["model"])
    path = tmp_path / "upop.pth"
    torch.save(content, path)

    def load():
        state, _, _, widths, _ = READERS["upop"]({"weights": path})
        backbones.load_strictly(build.build(architecture, widths), state, str(path))

    with pytest.raises(ValueError, match=reason) as refused:
        load()
    assert str(path) in str(refused.value)


def test_the_uncompressed_network_of_upop_is_not_narrower(tmp_path, network):
    torch.save(upop_file(dict(network.state_dict())), tmp_path / "dense.pth")
    assert READERS["upop"]({"weights": tmp_path / "dense.pth"}).widths == {}


# ------------------------------------------------------------------------------------------------- TinyCLIP


def tinyclip_file(state):
    """What TinyCLIP's manually inherited networks are published as: OpenCLIP's names, behind the prefix of
    DistributedDataParallel (src/open_clip/model.py, convert_to_new_checkpoint, reads them so)."""
    return {"epoch": 6, "name": "exp_name", "state_dict": {f"module.{key}": tensor for key, tensor in state.items()}}


def test_tinyclips_are_read_and_held_against_the_towers_that_they_are_smaller_than(tmp_path, network, architecture):
    (tmp_path / "config").mkdir()
    wide = {**tiny_clip.MODEL_CONFIG["vision_cfg"], "width": 192}
    (tmp_path / "config/wide.json").write_text(json.dumps(tiny_clip.MODEL_CONFIG | {"vision_cfg": wide}))
    open_clip.add_model_config(tmp_path / "config")
    torch.save(tinyclip_file(network.state_dict()), path := tmp_path / "tiny.pt")
    files = {"weights": {"path": str(path), "sha256": clip_digest(path)}}
    write_json(tmp_path / "fetched.json", {"failed": None, "files": files})
    told = ENTRY | {"architecture": architecture, "compression": "tinyclip", "sparsity": None}
    told |= {"narrowed_from": "clip/wide"}
    import_checkpoint("tiny", CheckpointLayout.model_validate(told), tmp_path / "fetched.json", tmp_path / "in")
    made, masks, manifest = backbones.load(tmp_path / "in")
    assert masks == {}
    assert all(torch.equal(made.state_dict()[key], tensor) for key, tensor in network.state_dict().items())
    dense, own = (
        sum(one.tensor.numel() for one in layer_weights(each).values()) for each in (build.build("clip/wide"), made)
    )
    compress(tmp_path / "in", tmp_path / "out", None, None)
    result = verify(tmp_path / "out", GATE, lambda *_: Recognised(20, 20, "photos", 0))
    assert result.passed, result.reasons
    assert result.sparsity_measured == pytest.approx(1 - own / dense) == manifest.sparsity_declared


@pytest.mark.parametrize(("size", "image", "text"), [("61M-32-Text-29M", 61, 29), ("40M-32-Text-19M", 40, 19)])
def test_tinyclips_towers_have_as_many_weights_as_their_names_say(size, image, text):
    """Texts are counted without the embeddings of tokens; they go through CLIP's own vocabulary."""
    with torch.device("meta"):
        made = build.build(f"clip/TinyCLIP-ViT-{size}")
    counts = {name: parameter.numel() for name, parameter in made.named_parameters()}
    of_image = sum(count for name, count in counts.items() if name.startswith("visual."))
    of_text = sum(counts.values()) - of_image - counts["token_embedding.weight"] - 1
    assert (of_image / 1e6, of_text / 1e6) == (pytest.approx(image, abs=1), pytest.approx(text, abs=1))
    tokens = clip_tokens(f"clip/{model.vocabulary_of(f'TinyCLIP-ViT-{size}')}", ["a photo of a cat."])
    assert tokens.shape == (1, 77)


@pytest.mark.parametrize("name", ["weights.bin", "weights.safetensors", "open_clip_model"])
def test_open_clip_is_read_pickled_or_not_by_any_name(tmp_path, network, name):
    path = tmp_path / name
    if name == "weights.bin":
        state = {f"module.{key}": value.half() for key, value in network.state_dict().items()}
        torch.save({"state_dict": state}, path)
    else:
        tiny_clip.save_open_clip(network, path)
    state = READERS["open_clip"]({"weights": path}).state
    assert state.keys() == network.state_dict().keys()
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}


# ------------------------------------------------------------------------------------------------- compression


@pytest.mark.parametrize(
    ("compression", "declared"),
    [
        ({"algorithm": "magnitude", "sparsity": 0.5}, 0.5),
        ({"algorithm": "magnitude", "sparsity": 0.5, "scope": "layer"}, 0.5),
        ({"algorithm": "random", "sparsity": 0.3, "scope": "erk"}, 0.3),
        ({"algorithm": "nm", "n": 2, "m": 4}, None),
        ({"algorithm": "channel", "sparsity": 0.25}, 0.25),
        ({"algorithm": "quantise", "bits": 4}, 0),
    ],
)
def test_compression_reaches_the_layers_of_both_towers_and_passes_the_gate(imported, tmp_path, compression, declared):
    compress(imported(), tmp_path / "out", compression, None)
    result = verify(tmp_path / "out", GATE, lambda *_: Recognised(20, 20, "photos", 0))
    assert result.passed, result.reasons
    made, masks, manifest = backbones.load(tmp_path / "out")
    dense, _, _ = backbones.load(tmp_path / "made")
    changed = {key for key, tensor in made.state_dict().items() if not tensor.equal(dense.state_dict()[key])}
    # 2:4 leaves the stem of 3 channels dense, and ERK the layers that are small
    left = {"nm": {"visual.conv1.weight"}}.get(compression["algorithm"], set())
    if compression.get("scope") == "erk":
        left = {key for key, mask in masks.items() if mask.all()}
    assert changed == set(layer_weights(dense)) - left
    assert {"visual.conv1.weight", "transformer.resblocks.1.attn.in_proj_weight"} <= set(layer_weights(dense))
    assert not {"visual.proj", "token_embedding.weight", "logit_scale"} & set(layer_weights(dense))
    if declared:
        assert manifest.sparsity_declared == pytest.approx(declared, abs=0.002)
        assert set(masks) == set(layer_weights(dense))


def test_a_weight_that_came_back_fails_the_gate(imported, tmp_path):
    compress(imported(), tmp_path / "out", {"algorithm": "magnitude", "sparsity": 0.5}, None)
    made, masks, manifest = backbones.load(tmp_path / "out")
    key = "transformer.resblocks.0.attn.in_proj_weight"
    made.get_parameter(key)[~masks[key]] = 1
    backbones.save(tmp_path / "out", made.state_dict(), masks, manifest)
    result = verify(tmp_path / "out", GATE, lambda *_: Recognised(20, 20, "photos", 0))
    assert any(f"{key}: mask and weights disagree" in reason for reason in result.reasons)


@pytest.mark.parametrize("control", ["random_init", "shuffled"])
def test_controls(imported, tmp_path, control):
    compress(imported("upop"), tmp_path / "out", None, control)
    made, _, manifest = backbones.load(tmp_path / "out")
    result = verify(tmp_path / "out", GATE, lambda *_: Recognised(0, 20, "photos", 12))
    assert result.passed, result.reasons
    narrow = made.visual.transformer.resblocks[0].mlp.c_fc.out_features == 300
    assert narrow == (control == "shuffled") == bool(manifest.widths)


def test_what_is_narrow_is_not_pruned_again(imported, tmp_path):
    folder = imported("upop")
    compress(folder, tmp_path / "out", {"algorithm": "magnitude", "sparsity": 0.9}, None)
    assert "narrower already" in read_json(tmp_path / "out/manifest.json")["failed"]


def test_a_network_without_its_weights_does_not_know_the_photos(imported, photos):
    entry = catalog.photos()["imagenet20"]
    folder = imported()
    compress(folder, folder.with_name("out"), None, None)
    result = verify(folder.with_name("out"), GATE, imagenet_photos(photos, entry, 12))
    assert not result.passed
    assert result.photos.of == "ImageNet photos, among their classes"
    assert result.photos.top1 < 6
    assert "of 20 ImageNet photos, among their classes, classified rightly, at least 12" in result.reasons[0]


# ------------------------------------------------------------------------------------------------- texts


def test_texts_are_each_template_with_each_class_as_words(network, architecture, tmp_path):
    path = tmp_path / "texts.safetensors"
    FAMILIES["clip"].embed_texts(network, architecture, CLASSES, TEMPLATES, path)
    embeddings, scale = read_texts(path)
    assert embeddings.shape == (3, 4, 24)
    assert scale == pytest.approx(math.exp(3.0))
    words = ["airplane", "polka dotted", "annual crop", "sea horse"]
    texts = [template.format(word) for template in TEMPLATES for word in words]
    plain = functional.normalize(plain_text(network, clip_tokens(architecture, texts), [64, 64]), dim=1)
    torch.testing.assert_close(embeddings.flatten(0, 1), plain, rtol=1e-4, atol=1e-5)
    from safetensors import safe_open

    with safe_open(path, "pt") as stored:
        assert json.loads(stored.metadata()["texts"]) == texts
    head = torch.stack([functional.normalize(plain[k::4].mean(0), dim=0) for k in range(4)]) * scale
    torch.testing.assert_close(FAMILIES["clip"].text_head(path), head, rtol=1e-3, atol=1e-3)


def test_the_published_templates_are_81():
    found = expand_templates("published")
    assert len(found) == len(set(found)) == PUBLISHED_TEMPLATES
    assert found[:2] == ["This is a photo of a {}.", "a bad photo of a {}."]
    assert all(template.count("{}") == 1 for template in found)


# ------------------------------------------------------------------------------------------------- images and prompts


@pytest.mark.parametrize("size", [(50, 33), (33, 50), (48, 48), (31, 90), (500, 375)])
def test_images_are_cropped_as_clip_was_trained(size):
    random = np.random.default_rng(0)
    image = Image.fromarray(random.integers(0, 256, (*size, 3), np.uint8))
    expected = Compose([Resize(CANVAS, InterpolationMode.BICUBIC), CenterCrop(CANVAS)])(image)
    found = pixels(image, f"{CANVAS}-shortest-bicubic")
    np.testing.assert_array_equal(found, np.asarray(expected).transpose(2, 0, 1))


def test_images_are_enlarged_on_the_device_as_pil_does():
    random = np.random.default_rng(0)
    small = random.integers(0, 256, (2, 3, 32, 32), np.uint8)
    expected = [Image.fromarray(one.transpose(1, 2, 0)).resize((CANVAS, CANVAS), Image.BICUBIC) for one in small]
    found = fill(torch.tensor(small), CANVAS, "bicubic").permute(0, 2, 3, 1).numpy().astype(int)
    assert np.abs(found - np.stack([np.asarray(one) for one in expected]).astype(int)).max() <= 2  # of 255


def plain_training(classifier, images, labels, classes, method, seed, protocol, mean, std):
    """The published loop on CLIP, written out: returns the prompt, mappings by epoch and losses by step."""
    prompt = torch.zeros(3, CANVAS, CANVAS, dtype=torch.float64, requires_grad=True)
    mask, width, velocity = torch.zeros(CANVAS, CANVAS, dtype=torch.float64), protocol.border, None
    mask[:width], mask[-width:], mask[:, :width], mask[:, -width:] = 1, 1, 1, 1
    mean, std = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in (mean, std))
    inputs = (images.double() / 255 - mean) / std
    sources = classifier.head.out_features

    def frequency():
        counts = [[0] * classes for _ in range(sources)]
        with torch.no_grad():
            for image, label in zip(inputs, labels, strict=True):
                counts[classifier((image + prompt * mask)[None]).argmax().item()][label.item()] += 1
        return reference.greedy(counts)

    mapping = torch.randperm(sources, generator=stream(seed, "mapping"))[:classes].tolist()
    mapping = mapping if method == "rlm" else frequency()
    shuffle, losses, mappings, step = stream(seed, "batches"), [], [], 0
    steps = protocol.epochs * math.ceil(len(labels) / protocol.batch_size)
    for epoch in range(protocol.epochs):
        if method == "ilm" and epoch:
            mapping = frequency()
        mappings.append(mapping)
        order = torch.randperm(len(labels), generator=shuffle)
        for batch in order.split(protocol.batch_size):
            logits = classifier(inputs[batch] + prompt * mask)[:, mapping]
            loss = functional.cross_entropy(logits, labels[batch])
            (gradient,) = torch.autograd.grad(loss, prompt)
            velocity = gradient if velocity is None else protocol.momentum * velocity + gradient
            rate = protocol.learning_rate * (1 + math.cos(math.pi * step / steps)) / 2
            with torch.no_grad():
                prompt -= rate * velocity
            losses.append(loss.item())
            step += 1
    return prompt.detach(), mappings, losses


@pytest.mark.parametrize("layout", ["open_clip", "upop"])
def test_the_engine_follows_the_published_loop_step_by_step(imported, layout, architecture, threads):
    """In float64, all methods and two budgets side by side: the tower lean, or narrow, and images in chunks."""
    network, _, manifest = backbones.load(imported(layout))
    texts = [template.format(class_words(name)) for template in TEMPLATES for name in CLASSES]
    name = model.configuration_of(manifest.architecture)
    classifier = classifier_of_texts(network, texts, name).double().requires_grad_(False)
    images = torch.randint(0, 256, (24, 3, CANVAS, CANVAS), dtype=torch.uint8, generator=stream(0, "noise"))
    labels = torch.arange(24) % 4
    protocol = RunClipProtocol.model_validate(PROTOCOL)
    mean, std = (t.double() for t in backbones.normalisation(manifest.preprocessing, CPU))
    computed = FAMILIES["clip"].for_inference(classifier, CPU)
    prompted = PromptedNetwork(computed, mean, std, protocol, Plan(None, chunk=7))
    budgets = [list(range(12)), list(range(24))]
    runs = [(method, chosen) for method in ("rlm", "flm", "ilm") for chosen in budgets]
    found = dict(train_prompts(prompted, images, labels, 4, runs, 3, protocol))
    moved = set()
    for number, (method, chosen) in enumerate(runs):
        plain = images[chosen], labels[chosen], 4, method, 3, protocol
        told = (manifest.preprocessing.mean, manifest.preprocessing.std)
        prompt, mappings, losses = plain_training(classifier, *plain, *told)
        torch.testing.assert_close(found[number].prompt, prompt, rtol=1e-6, atol=1e-6)
        assert found[number].mappings == mappings
        np.testing.assert_allclose(found[number].losses, losses, rtol=1e-6)
        assert prompt.abs().max() > 0.1
        moved.add(mappings[0] != mappings[-1])
    assert moved == {False, True}  # ilm's mapping has moved, the others' have not


def test_an_interrupted_run_goes_on_equal_to_the_bit(network, architecture, threads):
    name, protocol = model.configuration_of(architecture), RunClipProtocol.model_validate(PROTOCOL)
    texts = [template.format(class_words(one)) for template in TEMPLATES for one in CLASSES]
    classifier = classifier_of_texts(network, texts, name).requires_grad_(False)
    mean, std = backbones.normalisation(Preprocessing(**tiny_clip.PREPROCESSING), CPU)
    images = torch.randint(0, 256, (12, 3, 32, 32), dtype=torch.uint8, generator=stream(0, "noise"))
    data = images, torch.arange(12) % 4, 4, [("ilm", list(range(12)))], 0, protocol
    prompted = PromptedNetwork(FAMILIES["clip"].for_inference(classifier, CPU), mean, std, protocol, Plan())
    kept = []
    import copy

    ((_, whole),) = train_prompts(prompted, *data, keep=lambda states: kept.append(copy.deepcopy(states())))
    ((_, resumed),) = train_prompts(prompted, *data, states=kept[3])
    assert resumed.prompt.equal(whole.prompt)
    assert (resumed.losses, resumed.mappings) == (whole.losses, whole.mappings)


def test_the_plan_is_whole_canvases_and_chunks_that_fit(network, architecture, tmp_path, caplog, threads):
    caplog.set_level("INFO")
    name, protocol = model.configuration_of(architecture), RunClipProtocol.model_validate(PROTOCOL)
    classifier = classifier_of_texts(network, ["a cat", "a dog"], name).requires_grad_(False)
    mean, std = backbones.normalisation(Preprocessing(**tiny_clip.PREPROCESSING), CPU)
    frozen = FrozenNetwork(FAMILIES["clip"].for_inference(classifier, CPU), mean, std, protocol)
    plan = fit_to_device(frozen, tmp_path, 2**30).plan
    assert (plan.cover, plan.graphs) == (None, False)
    assert plan.chunk >= 8
    assert "whole canvases, as the prompt is added to the images" in caplog.text
