"""What share of a network's weights is zero, and what share masks leave out."""

from collections.abc import Iterable

from torch import Tensor, nn

from hiddencost.networks.family import Family


def measure_sparsity(
    network: nn.Module,
    family: Family,
    stem: str | None,
    masks: dict[str, Tensor] | None = None,
    removed: int = 0,
) -> dict:
    """Return the share of exact zeros or, given masks, of what they leave out.

    Args:
        network: as `backbones.load` returns it.
        family: the network's.
        stem: the name of its first convolution, if papers leave it out of their counts.
        masks: bool by key, True where kept.
        removed: the number of weights that its architecture has and it has not, as its blocks are narrower: they
            count as zeros of what its family prunes.

    Returns:
        The share over each of `Family.sparsity_groups` (None for a group without weights), over `all_parameters`, and
        per layer (`layers`, by name). Of most networks the groups are `convolutions`, `convolutions_without_stem` (as
        lottery-ticket papers count), `convolutions_and_classifier` (with the linear layers, as AC/DC and RigL count)
        and `convolutions_and_classifier_without_stem` (as RigL's uniform distribution); of a CLIP `towers`.
    """
    parameters = dict(network.named_parameters())
    tensors = parameters if masks is None else masks
    zeros = {key: int((tensor == 0).sum()) for key, tensor in tensors.items() if key in parameters}

    def share(keys: Iterable[str], removed: int = 0) -> float:
        keys = list(keys)
        present = sum(parameters[key].numel() for key in keys)
        return (removed + sum(zeros.get(key, 0) for key in keys)) / (removed + present)

    groups = family.sparsity_groups(network, stem)
    return {
        **{
            name: share(keys, removed if name == family.sparsity_over else 0) if keys else None
            for name, keys in groups.items()
        },
        "all_parameters": share(parameters),
        "layers": {name: share([key]) for name, key in family.layer_keys(network).items()},
    }
