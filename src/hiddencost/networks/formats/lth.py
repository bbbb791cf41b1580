"""Lottery tickets: weights and masks; the product is the network.

Two files, or one that is given as both. The paper's are a state dict and a dict of masks {`model.` + name: 0/1}; its
code looks masks up as "model." + name and, where the weights carry that prefix too, then overwrites what it masked
with the unmasked weights (github.com/landskape-ai/Reprogram_LT). VITA-Group's are of torch.nn.utils.prune: a
checkpoint whose state dict has `NAME.weight_orig` and `NAME.weight_mask`, and masks {NAME.weight_mask: 0/1}, as its
`extract_mask` returns them (github.com/VITA-Group/CV_LTH_Pre-training, main_imp_imagenet.py and pruning_utils.py).
"""

from pathlib import Path

from hiddencost.networks.formats.reading import ImportedCheckpoint, apply_masks, read_state_dict


def read(files: dict[str, Path]) -> ImportedCheckpoint:
    """Read weights and masks, and multiply them.

    Raises ValueError if a file is damaged, some of its keys have a prefix and some not, a mask does not fit, or the
    weights' own mask is another.
    """
    state, published = (read_state_dict(files[key]) for key in ("weights", "mask"))
    masks = published.masks or {key.removesuffix("_mask"): mask for key, mask in published.weights.items()}
    for key, mask in state.masks.items():
        if key in masks and not (mask.shape == masks[key].shape and (mask == masks[key]).all()):
            raise ValueError(f"{files['mask']}: the mask of {key} is another than that in {files['weights']}")
    return apply_masks(state.weights, state.masks | masks, files["mask"])
