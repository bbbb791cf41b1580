"""Training of visual prompts on a frozen network, and their evaluation."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from hiddencost.backbone import FORWARD_BATCH, classifier
from hiddencost.mapping import count_predictions, greedy_mapping, random_mapping
from hiddencost.prompt import border_mask, compose
from hiddencost.protocol import RunProtocol
from hiddencost.schedule import epoch_batches, optimiser, stream

Progress = Callable[[int], object]  # told how many images were trained on since the last call


@dataclass
class Trained:
    """A finished run: the prompt W, float32 [3, S, S], its label mapping, int64 [K], and how they came about."""

    prompt: Tensor
    mapping: Tensor
    losses: list[float] = field(default_factory=list)  # one a step
    mappings: list[list[int]] = field(default_factory=list)  # one an epoch
    diverged: str | None = None  # where the loss ceased to be finite


def resolve_precision(precision: str, device: torch.device) -> str:
    """Return "fp32" or "bf16"; "auto" is bf16 where the device computes in it natively."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        features = torch.cpu.get_capabilities()
        native = features.get("avx512_bf16", False) or features.get("amx_bf16", False)
    return "bf16" if native else "fp32"


class PromptedNetwork:
    """A frozen network behind a prompted canvas.

    network: as `backbone.for_inference` gives it; mean, std: [3, 1, 1] of its input in [0, 1], on the device and of
    the dtype (float32) in which prompts are trained.
    """

    def __init__(self, network: nn.Module, mean: Tensor, std: Tensor, protocol: RunProtocol):
        self.network, self.mean, self.std = network, mean, std
        self.device = mean.device
        self.source_classes = classifier(network).out_features
        self.mask = border_mask(protocol.image_size, protocol.canvas).to(mean)
        self.precision = resolve_precision(protocol.precision, self.device)

    def new_prompt(self) -> Tensor:
        """Return W = 0, [3, S, S]: a mid-grey border, as σ(0) = 0.5."""
        canvas = self.mask.shape[-1]
        return torch.zeros(3, canvas, canvas, device=self.device, dtype=self.mean.dtype, requires_grad=True)

    def logits(self, images: Tensor, prompt: Tensor) -> Tensor:
        """Return the source logits, [N, source classes], of uint8 images [N, 3, s, s]."""
        canvas = compose(images, prompt, self.mask, self.mean, self.std)
        return self.network(canvas).to(self.mean.dtype)

    def training_logits(self, images: Tensor, prompt: Tensor) -> Tensor:
        """Return the logits in the precision of training (bf16 under autocast), and so their gradient."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            return self.logits(images, prompt)

    @torch.inference_mode()
    def predict(self, images: Tensor, prompt: Tensor) -> Tensor:
        """Return the source logits of any number of images, for mapping and test: in full precision, as published."""
        batches = images.split(FORWARD_BATCH[self.device.type])
        return torch.cat([self.logits(batch, prompt) for batch in batches])


def train_prompt(
    prompted: PromptedNetwork,
    images: Tensor,
    labels: Tensor,
    classes: int,
    method: str,
    seed: int,
    protocol: RunProtocol,
    progress: Progress = lambda images: None,
) -> Trained:
    """Train one prompt with a label mapping, as published (arXiv 2308.14969; ILM-VP, arXiv 2211.11635).

    W starts at zero. The mapping is drawn at random (rlm), by frequency under the untrained prompt (flm), or by
    frequency under the current prompt at the start of each `mapping_interval`-th epoch (ilm). Cross-entropy on
    the mapped logits, Adam on W. The random streams depend on `seed` alone: one for rlm's mapping, one for the
    order of the batches, so that methods and backbones of one seed see the same batches.

    images: uint8 [N, 3, s, s]; labels: int64 [N]; both on the network's device. A loss that is not finite ends
    the run (`diverged`).
    """
    prompt = prompted.new_prompt()

    def frequency_mapping() -> Tensor:
        predictions = prompted.predict(images, prompt).argmax(1)
        return greedy_mapping(count_predictions(predictions, labels, prompted.source_classes, classes))

    if method == "rlm":
        mapping = random_mapping(prompted.source_classes, classes, stream(seed, "mapping"))
    else:
        mapping = frequency_mapping()
    trained = Trained(prompt, mapping)
    shuffle = stream(seed, "batches")
    adam, schedule = optimiser([prompt], protocol)
    for epoch in range(protocol.epochs):
        if method == "ilm" and epoch > 0 and epoch % protocol.mapping_interval == 0:
            mapping = frequency_mapping()
        trained.mappings.append(mapping.tolist())
        on_device = mapping.to(prompted.device)
        for batch in epoch_batches(len(labels), protocol, shuffle):
            batch = batch.to(prompted.device)
            logits = prompted.training_logits(images[batch], prompt)[:, on_device]
            loss = functional.cross_entropy(logits, labels[batch])
            adam.zero_grad()
            loss.backward()
            adam.step()
            trained.losses.append(loss.item())
            progress(len(batch))
            if not math.isfinite(trained.losses[-1]):
                trained.diverged = (
                    f"the loss is {trained.losses[-1]} at step {len(trained.losses)}, epoch {epoch + 1}"
                )
                break
        if trained.diverged:
            break
        schedule.step()
    trained.prompt, trained.mapping = prompt.detach(), mapping
    return trained
