"""A CLIP of open_clip so small that tests can train on it, and files of it in the published layouts."""

import copy
import json
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file
from torch import nn

from hiddencost.networks import build

CANVAS = 48
MODEL_CONFIG = {
    "embed_dim": 24,
    "quick_gelu": True,
    "vision_cfg": {"image_size": CANVAS, "layers": 2, "width": 128, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2},
}
RESNET_CONFIG = MODEL_CONFIG | {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
}
PREPROCESSING = {
    "mean": [0.48, 0.46, 0.41],
    "std": [0.27, 0.26, 0.28],
    "interpolation": "bicubic",
    "resize": "shortest",
}
KEPT = {"visual": ([40, 64], [300, 200]), "text": ([20, 33], [256, 111])}  # of UPop, by block: of a head, of the MLP


def configure(folder: Path) -> str:
    """Tell open_clip of the configuration, by a file in a folder, and return the architecture that names it; behind
    it "-resnet" is one whose images are seen by a ResNet."""
    folder.mkdir(exist_ok=True)
    (folder / "tiny.json").write_text(json.dumps(MODEL_CONFIG))
    (folder / "tiny-resnet.json").write_text(json.dumps(RESNET_CONFIG))
    open_clip.add_model_config(folder)
    return "clip/tiny"


def network(architecture: str, seed: int = 0) -> nn.Module:
    """Return the CLIP, randomly initialised but with weights as large as trained ones, so that its answers vary."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = build.build(architecture).requires_grad_(False)
        for name, parameter in made.named_parameters():
            if parameter.dim() > 1 and "embedding" not in name:
                parameter.copy_(torch.randn_like(parameter) * 0.6 * parameter.shape[-1] ** -0.5)
        made.logit_scale.fill_(3.0)
    return made


def save_open_clip(made: nn.Module, path: Path) -> None:
    """Write a network as open_clip publishes it."""
    save_file({key: tensor.contiguous() for key, tensor in made.state_dict().items()}, path)


def blocks(made: nn.Module) -> dict[str, nn.Module]:
    """Return the blocks of both towers by name."""
    return {
        name: module
        for name, module in made.named_modules()
        if name.rpartition(".")[0].endswith("transformer.resblocks")
    }


def upop_state(made: nn.Module, seed: int = 1) -> tuple[dict, dict]:
    """Prune a network as UPop's CLIP.compress does. Returns its state dict and, by block, which attention dimensions
    and which neurons were kept, bool each."""
    random = torch.Generator().manual_seed(seed)
    state, kept = {key: tensor.clone() for key, tensor in made.state_dict().items()}, {}
    for name, block in blocks(made).items():
        tower, index = "visual" if name.startswith("visual") else "text", int(name.rpartition(".")[2])
        heads = block.attn.num_heads
        counts = (KEPT[tower][part][index] for part in (0, 1))
        attention, neurons = (
            torch.zeros(size, dtype=torch.bool).index_fill(0, torch.randperm(size, generator=random)[:count], True)
            for size, count in zip((64, block.mlp.c_fc.out_features), counts, strict=True)
        )
        kept[name] = attention, neurons
        for key, mask in (
            ("in_proj_weight", attention.repeat(3 * heads)),
            ("in_proj_bias", attention.repeat(3 * heads)),
        ):
            state[f"{name}.attn.{key}"] = state[f"{name}.attn.{key}"][mask]
        state[f"{name}.attn.out_proj.weight"] = state[f"{name}.attn.out_proj.weight"][:, attention.repeat(heads)]
        for key in ("weight", "bias"):
            state[f"{name}.mlp.c_fc.{key}"] = state[f"{name}.mlp.c_fc.{key}"][neurons]
        state[f"{name}.mlp.c_proj.weight"] = state[f"{name}.mlp.c_proj.weight"][:, neurons]
    return state, kept


def upop_file(state: dict) -> dict:
    """Return what UPop's compress_retrieval_clip.py saves of a state dict: momentum copies and queues beside it."""
    momentum = {"visual.": "visual_m.", "transformer.": "transformer_m.", "token_embedding.": "token_embedding_m."}
    momentum |= {"ln_final.": "ln_final_m."}
    full = copy.copy(state)
    for key, tensor in state.items():
        for prefix, other in momentum.items():
            if key.startswith(prefix):
                full[other + key.removeprefix(prefix)] = tensor
    full |= {f"{key}_m": state[key] for key in ("text_projection", "positional_embedding")}
    full |= {f"{kind}_queue": torch.randn(24, 100) for kind in ("image", "text")}
    full |= {"idx_queue": torch.full((1, 100), -100), "ptr_queue": torch.zeros(1, dtype=torch.int64)}
    return {"model": full}


# a study of it, beside a convolutional network
BACKBONES = [
    {"name": "clip-dense", "checkpoint": "clip-tiny"},
    {
        "name": "clip-magnitude50",
        "checkpoint": "clip-tiny",
        "compression": {"algorithm": "magnitude", "sparsity": 0.5},
    },
    {"name": "clip-upop", "checkpoint": "clip-tiny-upop"},
    {"name": "cnn", "checkpoint": "mobilenetv2"},
]
CONFIG = {
    "study": "words",
    "seeds": [0],
    "shots": [1, 2],
    "methods": ["rlm", "flm", "ilm", "lp", "zs"],
    "backbones": BACKBONES,
    "datasets": [{"name": "cifar10-part", "image_size": 28}],
    "protocol": {
        **{"canvas": 32, "epochs": 1, "learning_rate": 0.01, "milestones": [], "gamma": 0.1, "batch_size": 16},
        **{"shuffle": True, "mapping_interval": 1, "precision": "fp32", "test_batch_size": 128},
    },
    "clip": {
        **{"border": 8, "epochs": 2, "learning_rate": 40.0, "momentum": 0.9, "batch_size": 16, "shuffle": True},
        **{"mapping_interval": 1, "precision": "fp32", "test_batch_size": 128},
        "templates": ["This is a photo of a {}.", "a drawing of the {}.", "graffiti of a {}."],
    },
    "probe": {
        **{"epochs": 5, "learning_rate": 0.01, "milestones": [0.5], "gamma": 0.1, "batch_size": 16, "shuffle": True},
        "test_batch_size": 128,
    },
    "verification": {"sparsity_tolerance": 0.005, "photos_top1": 0},
}
