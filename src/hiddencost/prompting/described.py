"""What the log says of how a network runs: no number depends on it."""

from torch import fx

from hiddencost.prompting.engine import FrozenNetwork
from hiddencost.prompting.measure import Way


def describe_way(frozen: FrozenNetwork, ways: list[Way], way: Way) -> str:
    """Say how a network runs, and why in this way."""
    text = "whole canvases" if way.cover is None else "the border once"
    text += ", fused kernels" * way.fused + ", CUDA graphs" * way.graphs
    whole, shared = ([each for each in ways if (each.cover is None) == unshared] for unshared in (True, False))
    if shared:
        best_whole, best_shared = (min(kind, key=lambda each: each.cost) for kind in (whole, shared))
        return (
            f"{text}; {way.unit} a trained image: {best_whole.cost:.3g} with whole canvases, "
            f"{best_shared.cost:.3g} with the border once up to {best_shared.until}"
        )
    walked = isinstance(frozen.network, fx.GraphModule)
    why = "the border is too small to share" if walked else "torch.fx cannot walk the network"
    return f"{text}, as {frozen.prompt.not_shared or why}"
