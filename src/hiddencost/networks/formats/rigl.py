"""RigL's ResNet-50 as Google trained it, an archive of a TensorFlow checkpoint, or as IST converted it (`ist`).

TensorFlow's variables are `resnet_model/LAYER/{weights,mask,threshold}` of each convolution and of `final_dense`,
which has `biases`, too, and those of the batch norms, which are numbered in the order of the convolutions. Weights
are in the order height, width, input, output. What the network computes with is weights x mask: weights that were
dropped keep small values. In a network of uniform sparsity, and in that of 99 %, the first convolution is not pruned;
it is then made by another function, whose scope has the layer's name twice (github.com/google-research/rigl,
rigl/imagenet_resnet/resnet_model.py and pruning_layers.py; tensorflow/contrib/model_pruning/python/layers/layers.py).
State of Sparsity's ResNet-50 has the same names (github.com/google-research/google-research, state_of_sparsity).
"""

import re
from pathlib import Path

from torch import Tensor

from hiddencost.networks.formats import ist
from hiddencost.networks.formats.archive import is_archive
from hiddencost.networks.formats.reading import ImportedCheckpoint, apply_masks
from hiddencost.networks.formats.tensorflow import read_archive

SCOPE = "resnet_model/"
BLOCKS = (3, 4, 6, 3)  # of each group
BATCH_NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
STEM, HEAD = "initial_conv", "final_dense"
# of the training alone: what Momentum gathers, and what model_pruning compares, in later versions gradients, too
OF_TRAINING = re.compile(r".*/(Momentum|threshold|gradient|old_weight|old_old_weight)")


def convolutions() -> dict[str, str]:
    """Return the scopes of the convolutions within `resnet_model`, in the order in which the network makes them, with
    the names of `resnet50_rigl`."""
    scopes = {STEM: STEM}
    for group, blocks in enumerate(BLOCKS, 1):
        for block in range(blocks):
            tail = f"block_group{group}_{block}_1" if block else f"block_group_projection_block_group{group}"
            parts = {"1": "conv1", "2": "conv2", "3": "conv3"}
            for part, ours in (parts if block else {"projection": "shortcut"} | parts).items():
                scopes[f"bottleneck_{part}_{tail}"] = f"layer{group}.block.{block}.{ours}"
    return scopes


def variables() -> dict[str, str]:
    """Return the variables of the network, with the names of `resnet50_rigl`; a mask is NAME_mask."""
    names: dict[str, str] = {}
    for number, (scope, ours) in enumerate(convolutions().items()):
        names |= {
            f"{SCOPE}{scope}/weights": f"{ours}.conv.weight",
            f"{SCOPE}{scope}/mask": f"{ours}.conv.weight_mask",
        }
        norm = f"{SCOPE}batch_normalization" + (f"_{number}" if number else "")
        names |= {f"{norm}/{theirs}": f"{ours}.bn.{parameter}" for theirs, parameter in BATCH_NORM.items()}
    of_head = {"weights": "fc.weight", "mask": "fc.weight_mask", "biases": "fc.bias"}
    return names | {f"{SCOPE}{HEAD}/{theirs}": ours for theirs, ours in of_head.items()}


def read(files: dict[str, Path]) -> ImportedCheckpoint:
    """Read a network, its masks multiplied in.

    Raises:
        ValueError: in one line, with file and variable: the file is damaged, a variable or a mask is missing, one is
            of another network, or a mask does not fit.
    """
    path = files["weights"]
    if not is_archive(path):
        return ist.read(files)
    expected = variables()
    unpruned, weights, mask = f"{SCOPE}{STEM}/{STEM}/weights", f"{SCOPE}{STEM}/weights", f"{SCOPE}{STEM}/mask"
    tensors, others = read_archive(path, lambda name: name in expected or name == unpruned)
    for name in others:  # what is outside the network's scope is of its training: counters, a learning rate
        if name.startswith(SCOPE) and not OF_TRAINING.fullmatch(name):
            raise ValueError(f"{path}: unexpected variable {name}; expected those of RigL's ResNet-50")
    if unpruned in tensors:
        if weights in tensors:
            raise ValueError(f"{path}: the weights of {STEM} are there twice, as {unpruned} and as {weights}")
        if mask in tensors:
            raise ValueError(f"{path}: {mask} is there, but not its {weights}: of a dense {STEM}, it is {unpruned}")
        tensors[weights] = tensors.pop(unpruned)
        del expected[mask]
    if missing := [name for name in expected if name not in tensors]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ValueError(f"{path}: the variable {missing[0]}{more} is missing, of RigL's ResNet-50")
    state = {expected[name]: _turned(tensor) for name, tensor in tensors.items()}
    masks = {key.removesuffix("_mask"): state.pop(key) for key in list(state) if key.endswith("_mask")}
    product, kept, report, *_ = apply_masks(state, masks, path)
    return ImportedCheckpoint(product, kept, report | {"of_its_training": len(others)})


def _turned(tensor: Tensor) -> Tensor:
    """Return weights in PyTorch's order: output, input, height, width; float32 where they are floating-point."""
    tensor = tensor.float() if tensor.is_floating_point() else tensor
    if tensor.dim() == 4:
        return tensor.permute(3, 2, 0, 1).contiguous()
    return tensor.T.contiguous() if tensor.dim() == 2 else tensor
