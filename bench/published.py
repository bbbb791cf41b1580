"""The published loop, written plainly: the baseline of the benchmarks.

One run at a time, as arXiv 2308.14969 (landskape-ai/Reprogram_LT) and ILM-VP (arXiv 2211.11635, OPTML-Group/ILM-VP)
train: a module that pads each image and adds the prompt, the network as it comes (batch norm, PyTorch's default
layout), a DataLoader over the training images, a mapping pass over them before each epoch (ILM), and a pass over the
test images after each epoch.

On a GPU it trains under fp16 autocast with a gradient scaler, maps and tests in float32, and its images come from
loader workers, not through pinned memory, all as in both repositories. On a CPU, where CUDA's autocast and scaler do
nothing, all is float32, and without workers, which would only take cores from the network. What the authors' scripts
do beside (progress bars, a heat map of each test, checkpoints) is left out.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.nn import functional
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset

Network = Callable[[Tensor], Tensor]  # from images as the prompt makes them to logits [N, source classes]

CANVAS = 224


class Images(Dataset):
    """Images uint8 [N, 3, s, s] and labels, turned into floats one by one, as a dataset of torchvision does."""

    def __init__(self, images: Tensor, labels: Tensor):
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index].float() / 255, int(self.labels[index])


def loader(images: Tensor, labels: Tensor, batch_size: int, device: torch.device, shuffle: bool = True) -> DataLoader:
    """Return the batches of a pass over images uint8 [N, 3, s, s] with labels int64 [N], by workers on a GPU: two for
    images of up to 32 pixels, eight for larger ones, as ILM-VP has them for its data sets of 32 and 128 pixels."""
    workers = (2 if images.shape[-1] <= 32 else 8) if device.type == "cuda" else 0
    return DataLoader(Images(images, labels), batch_size=batch_size, shuffle=shuffle, num_workers=workers)


def half(device: torch.device) -> bool:
    """Say whether the loop trains in fp16 on a device."""
    return device.type == "cuda"


def precision(device: torch.device) -> str:
    """Tell the precision in which the loop trains on a device."""
    return "fp16 autocast" if half(device) else "fp32"


def scaler(device: torch.device) -> GradScaler:
    """Return the gradient scaler of a run."""
    return GradScaler(device.type, enabled=half(device))


@contextmanager
def settings() -> Iterator[None]:
    """Set cuDNN as the loop has it: deterministic, as the authors ask for, and convolutions of float32 in TF32, as
    PyTorch comes."""
    cudnn = torch.backends.cudnn
    kept = cudnn.deterministic, cudnn.conv.fp32_precision
    cudnn.deterministic, cudnn.conv.fp32_precision = True, "tf32"
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.conv.fp32_precision = kept


class Prompt(nn.Module):
    """Put images on a canvas with a learned border, and normalise."""

    def __init__(self, size: int, mean: Tensor, std: Tensor):
        super().__init__()
        self.before, self.after = (CANVAS - size + 1) // 2, (CANVAS - size) // 2
        self.program = nn.Parameter(torch.zeros(3, CANVAS, CANVAS))
        mask = torch.ones(3, CANVAS, CANVAS)
        mask[:, self.before : CANVAS - self.after, self.before : CANVAS - self.after] = 0
        self.register_buffer("mask", mask)
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, images: Tensor) -> Tensor:
        canvas = functional.pad(images, (self.before, self.after, self.before, self.after))
        return (canvas + torch.sigmoid(self.program) * self.mask - self.mean) / self.std


def train_epoch(
    network: Network, prompt: nn.Module, optimiser: Optimizer, scaler: GradScaler, mapping: Tensor, loader: DataLoader
) -> tuple[float, float]:
    """Take a step a batch. Returns the mean loss and the accuracy, read at each step, as the authors show them."""
    device = prompt.program.device
    total, right = 0.0, 0.0
    for images, labels in loader:
        images, labels = images.to(device), labels.to(device)
        optimiser.zero_grad()
        with torch.autocast(device.type, torch.float16, enabled=half(device)):
            logits = network(prompt(images))[:, mapping]
            loss = functional.cross_entropy(logits, labels)
        scaler.scale(loss).backward()
        scaler.step(optimiser)
        scaler.update()
        right += (logits.argmax(1) == labels).sum().item()
        total += loss.item() * len(labels)
    return total / len(loader.dataset), right / len(loader.dataset)


@torch.no_grad()
def map_labels(network: Network, prompt: nn.Module, classes: int, loader: DataLoader) -> Tensor:
    """Return the mapping by frequency under the current prompt, int64 [classes], and so read each training image."""
    device = prompt.program.device
    counts = torch.zeros(1000, classes, dtype=torch.int64)
    for images, labels in loader:
        predictions = network(prompt(images.to(device))).argmax(1).cpu()
        counts.index_put_((predictions, labels), torch.ones_like(labels), accumulate=True)
    mapping = torch.zeros(classes, dtype=torch.int64)
    for _ in range(classes):
        source, target = divmod(int(counts.argmax()), classes)
        mapping[target] = source
        counts[source], counts[:, target] = -1, -1
    return mapping.to(device)


@torch.no_grad()
def test(network: Network, prompt: nn.Module, mapping: Tensor, loader: DataLoader) -> float:
    """Return the accuracy over the test images."""
    device = prompt.program.device
    right = 0
    for images, labels in loader:
        right += (network(prompt(images.to(device)))[:, mapping].argmax(1).cpu() == labels).sum().item()
    return right / len(loader.dataset)
