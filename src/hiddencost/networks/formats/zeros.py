"""A state dict, keys as in the network, whose removed weights are zeros: the masks are taken from them.

DeGirum's ResNet-50s, saved by Distiller, which multiplies its masks into the weights, and its EfficientNets, as timm
publishes them. Its notebooks load them into torchvision's network: EvalPrunedModelsStateDict.ipynb, and
EvalPrunedModelsCkpt.ipynb the checkpoints of their training, under `state_dict` and behind `module.`
(github.com/DeGirum/pruned-models).
"""

from pathlib import Path

from hiddencost.networks.formats.reading import ImportedCheckpoint, apply_masks, read_state_dict


def read(files: dict[str, Path]) -> ImportedCheckpoint:
    """Read a state dict, see `read_state_dict`; its convolutions and pruned linear layers get the masks of their
    zeros."""
    return apply_masks(*read_state_dict(files["weights"]), files["weights"])
