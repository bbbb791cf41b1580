"""UPop's format for CLIP (github.com/sdc17/UPop, clip/model.py and compress_retrieval_clip.py).

torch.save of {model: state dict}: OpenAI's CLIP by its own names, whose blocks have lost attention dimensions (the
same ones in each head) and neurons of their MLPs, and beside it what only its training needs: momentum copies of both
towers (`visual_m.`, `transformer_m.`, ...) and the queues of MoCo.
"""

import re
from pathlib import Path

from torch import Tensor

from hiddencost.networks.formats.reading import ImportedCheckpoint, read_state_dict

BLOCK = re.compile(r"((?:visual\.)?transformer\.resblocks\.\d+)\.attn\.in_proj_weight")
MOMENTUM = ("visual_m.", "transformer_m.", "token_embedding_m.", "ln_final_m.")
QUEUES = ("image_queue", "text_queue", "idx_queue", "ptr_queue", "text_projection_m", "positional_embedding_m")
HEAD = 64  # the width of a head before pruning, in both towers of all of OpenAI's ViTs


def read(files: dict[str, Path]) -> ImportedCheckpoint:
    """Read a network, compressed or not, and how wide its blocks are.

    Raises ValueError, with file and key, if the file is damaged, a copy kept for training has no original or another
    shape, or the layers of a block do not fit each other. That no other key is there is checked by who loads it.
    """
    path = files["weights"]
    stored, masks = read_state_dict(path)
    for key in masks:
        raise ValueError(f"{path}: unexpected key {key}_mask; expected a network without what was pruned")
    training = {key for key in stored if key.startswith(MOMENTUM) or key in QUEUES}
    state = {key: tensor for key, tensor in stored.items() if key not in training}
    blocks = [match[1] for key in state if (match := BLOCK.fullmatch(key))]
    if not blocks:
        raise ValueError(f"{path}: no block of a CLIP, such as visual.transformer.resblocks.0, is in it")
    widths = {block: _widths(block, state, path) for block in blocks}
    for key in sorted(training - {name for name in QUEUES if name.endswith("queue")}):
        original = re.sub(r"_m(?=\.|$)", "", key, count=1)
        if original not in state or state[original].shape != stored[key].shape:
            has = list(state[original].shape) if original in state else "nothing"
            raise ValueError(f"{path}: {key} has shape {list(stored[key].shape)}, its original {original} {has}")
    narrower = {block: inner for block, (*inner, width) in widths.items() if inner != [HEAD, 4 * width]}
    return ImportedCheckpoint(state, {}, {"keys": len(state), "of_its_training": len(training)}, narrower)


def _widths(block: str, state: dict[str, Tensor], path: Path) -> tuple[int, int, int]:
    """Return how wide a block's attention heads are, its MLP and the block itself, whose layers must fit."""
    names = (
        "attn.in_proj_weight",
        "attn.in_proj_bias",
        "attn.out_proj.weight",
        "mlp.c_fc.weight",
        "mlp.c_proj.weight",
    )
    if missing := [name for name in names if f"{block}.{name}" not in state]:
        raise ValueError(f"{path}: the key {block}.{missing[0]} is missing")
    projection, bias, out, first, second = (tuple(state[f"{block}.{name}"].shape) for name in names)
    for name, shape, dimensions in zip(names, (projection, bias, out, first, second), (2, 1, 2, 2, 2), strict=True):
        if len(shape) != dimensions or 0 in shape:
            raise ValueError(
                f"{path}: {block}.{name} has shape {list(shape)}, expected {dimensions} dimensions, none of 0"
            )
    width = projection[-1]
    heads = max(1, width // HEAD)
    head = projection[0] // (3 * heads)
    of_attention = (3 * heads * head, width), (3 * heads * head,), (width, heads * head)
    expected = (*of_attention, (first[0], width), (width, first[0]))
    for name, shape, expected_shape in zip(names, (projection, bias, out, first, second), expected, strict=True):
        if shape != expected_shape:
            raise ValueError(
                f"{path}: {block}.{name} has shape {list(shape)}, expected {list(expected_shape)}, of {heads} heads, "
                "as its other layers have them"
            )
    return head, first[0], width
