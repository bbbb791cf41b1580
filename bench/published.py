"""The published loop, written plainly: the baseline of the benchmarks.

One run at a time, as arXiv 2308.14969 and ILM-VP (arXiv 2211.11635) train: a module that pads each image and adds
the prompt, the network as it comes (batch norm, PyTorch's default layout), float32, a DataLoader over the training
images, a mapping pass over them before each epoch (ILM), and a pass over the test images after each epoch.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

CANVAS = 224


class Images(Dataset):
    """Images uint8 [N, 3, s, s] and labels, turned into floats one by one, as a dataset of torchvision does."""

    def __init__(self, images: Tensor, labels: Tensor):
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index].float() / 255, int(self.labels[index])


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


def train_epoch(network: nn.Module, prompt: Prompt, adam: torch.optim.Adam, mapping: Tensor, loader: DataLoader):
    """Take a step a batch. Returns the last loss."""
    device = prompt.program.device
    for images, labels in loader:
        logits = network(prompt(images.to(device)))[:, mapping]
        loss = functional.cross_entropy(logits, labels.to(device))
        adam.zero_grad()
        loss.backward()
        adam.step()
    return loss.item()


@torch.no_grad()
def map_labels(network: nn.Module, prompt: Prompt, classes: int, loader: DataLoader) -> Tensor:
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
def test(network: nn.Module, prompt: Prompt, mapping: Tensor, loader: DataLoader) -> float:
    """Return the accuracy over the test images."""
    device = prompt.program.device
    right = 0
    for images, labels in loader:
        right += (network(prompt(images.to(device)))[:, mapping].argmax(1).cpu() == labels).sum().item()
    return right / len(loader.dataset)
