"""STR's format (github.com/RAIVNLab/STR): torchvision's names, the classifier a convolution of 1 x 1 without a bias.

torch.save of {epoch, arch, state_dict} and of what its training keeps, behind the prefix of DataParallel (main.py).
Beside each weight w a network of STR's has its threshold s, LAYER.sparseThreshold [1, 1], and computes with
sign(w) relu(|w| - sigmoid(s)) (utils/conv_type.py, sparseFunction). "Dense compatible" files hold these products
alone, as --dense-conv-model writes them. Files of an old version that "replicated the weights" (README.md) are
refused by their further keys.
"""

from pathlib import Path

import torch
from torch import Tensor

from hiddencost.networks.formats.reading import ImportedCheckpoint, apply_masks, read_state_dict

THRESHOLD = "sparseThreshold"


def read(files: dict[str, Path]) -> ImportedCheckpoint:
    """Read a ResNet of STR's, as trained or "dense compatible", with the masks of its zeros; of the dense one
    with none.

    Raises ValueError, with file and key, if the file is damaged, a threshold has no weight or another shape, or the
    classifier is no convolution.
    """
    path = files["weights"]
    stored, masks = read_state_dict(path)
    thresholds = {key: tensor for key, tensor in stored.items() if key.endswith(f".{THRESHOLD}")}
    state = {key: tensor for key, tensor in stored.items() if key not in thresholds}
    for key, threshold in thresholds.items():
        weight = key.removesuffix(THRESHOLD) + "weight"
        if weight not in state or threshold.numel() != 1:
            expected = f"one number beside {weight}"
            raise ValueError(f"{path}: {key} has shape {list(threshold.shape)}, expected {expected}")
        state[weight] = _thresholded(state[weight], threshold.reshape(()))
    classifier = state.get("fc.weight")
    if classifier is None or classifier.shape[2:] != (1, 1):
        found = "missing" if classifier is None else f"of shape {list(classifier.shape)}"
        raise ValueError(f"{path}: fc.weight is {found}, expected a convolution of 1 x 1")
    state["fc.weight"] = classifier[:, :, 0, 0]
    state.setdefault("fc.bias", torch.zeros(len(classifier)))  # without one, as --last-layer-dense is not set
    checkpoint = apply_masks(state, masks, path)
    is_dense = all(mask.all() for mask in checkpoint.masks.values())
    return checkpoint._replace(masks={}) if is_dense else checkpoint


def _thresholded(weight: Tensor, threshold: Tensor) -> Tensor:
    return weight.sign() * (weight.abs() - threshold.sigmoid()).relu()
