"""Images of several runs that go through a network together, and the parameters of the runs."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hiddencost.prompting.prompt import Parameters


@dataclass
class Chunk:
    """Images of a step that go through the network together, sorted by run.

    Attributes:
        images: uint8 [N, 3, s, s].
        labels: int64 [N].
        weights: [N], what each image's loss counts.
        runs: int64 [N], the run of each image.
        mappings: by run, the source class of each target class, int64 [R, K], or weights, [R, K, source classes];
            those with a bias, [R, K, source classes + 1], are trained. See `prompting.matrix`.
        parameters: what is trained, [R, ...] each, by run: those of the prompt (`Prompt.new`).
    """

    images: Tensor
    labels: Tensor
    weights: Tensor
    runs: Tensor
    mappings: Tensor
    parameters: Parameters

    def tensors(self) -> list[Tensor]:
        return [self.images, self.labels, self.weights, self.runs, self.mappings, *self.parameters.values()]

    def of(self, *tensors: Tensor) -> "Chunk":
        """Return the same with other tensors, in the order of `tensors`."""
        images, labels, weights, runs, mappings, *trained = tensors
        return Chunk(images, labels, weights, runs, mappings, dict(zip(self.parameters, trained, strict=True)))


def stacked(parameters: Sequence[Parameters]) -> Parameters:
    """Return the parameters of runs, which have the same names, with their number in front."""
    return {name: torch.stack([one[name].detach() for one in parameters]) for name in parameters[0]}


def of_runs(parameters: Parameters, present: slice) -> Parameters:
    """Return the parameters of some of the runs."""
    return {name: tensor[present] for name, tensor in parameters.items()}


def runs_of_images(counts: Sequence[int]) -> Tensor:
    """Return the run of each image, int64 on the host, of counts[r] images of run r one after another."""
    return torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Move a tensor from the host to a device; a GPU's work is not waited for."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
