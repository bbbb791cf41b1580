"""The published algorithm, written plainly: the oracle of the engine's tests.

One batch at a time through the unfolded network in PyTorch's default layout, an explicit canvas, an
explicit loop for the mapping and Adam written out from its paper.
"""

import math

import torch
from torch.nn import functional

from hiddencost.prompting.schedule import stream


def canvas_of(images, prompt, size, mean, std):
    count, _, s, _ = images.shape
    low = (size - s + 1) // 2
    canvas = torch.sigmoid(prompt).expand(count, 3, size, size).clone()
    canvas[:, :, low : low + s, low : low + s] = images.to(prompt.dtype) / 255
    mean, std = (torch.tensor(values, dtype=prompt.dtype).view(1, 3, 1, 1) for values in (mean, std))
    return (canvas - mean) / std


def greedy(counts):
    counts = [list(row) for row in counts]
    sources, targets = len(counts), len(counts[0])
    mapping = [None] * targets
    for _ in range(targets):
        best = (-2, None, None)
        for i in range(sources):
            for j in range(targets):
                if counts[i][j] > best[0]:
                    best = (counts[i][j], i, j)
        _, i, j = best
        mapping[j] = i
        counts[i] = [-1] * targets
        for row in counts:
            row[j] = -1
    return mapping


class Border:
    """The prompt of ILM-VP: what is learned of it, how it is put around images, what is done to it after a step."""

    def __init__(self, protocol, dtype):
        self.size = protocol.canvas
        self.learned = [torch.zeros(3, self.size, self.size, dtype=dtype, requires_grad=True)]

    def canvases(self, images, mean, std):
        return canvas_of(images, *self.learned, self.size, mean, std)

    def after_step(self):
        pass


class Resized(Border):
    """AutoVP's: the image is padded with zeros, and the canvas scaled about its centre, pixel by pixel."""

    def __init__(self, protocol, dtype):
        super().__init__(protocol, dtype)
        self.learned.append(torch.tensor(protocol.scale, dtype=dtype, requires_grad=True))

    def canvases(self, images, mean, std):
        prompt, scale = self.learned
        size, (count, _, s, _) = self.size, images.shape
        low, centre = (size - s + 1) // 2, (size - 1) / 2
        padded = torch.zeros(count, 3, size, size, dtype=prompt.dtype)
        padded[:, :, low : low + s, low : low + s] = images.to(prompt.dtype) / 255
        rows = []
        for y in range(size):  # what stands there: two rows, or columns, of what was
            place = centre + (y - centre) / scale
            above = math.floor(place.item())
            row = torch.zeros(size, dtype=prompt.dtype)
            for at, share in ((above, above + 1 - place), (above + 1, place - above)):
                if 0 <= at < size:
                    row = row + share * torch.nn.functional.one_hot(torch.tensor(at), size)
            rows.append(row)
        weights = torch.stack(rows)
        canvas = weights @ padded @ weights.T
        side = min(int(s * scale.item()), size)
        border = torch.ones(size, size, dtype=prompt.dtype)
        border[(size - side) // 2 : (size + side) // 2, (size - side) // 2 : (size + side) // 2] = 0
        canvas = canvas + torch.sigmoid(prompt) * border
        mean, std = (torch.tensor(values, dtype=prompt.dtype).view(1, 3, 1, 1) for values in (mean, std))
        return (canvas - mean) / std

    def after_step(self):
        self.learned[1].clamp_(0.1, 5)


def train(network, images, labels, classes, method, seed, protocol, mean, std, dtype, shape=Border):
    """Returns (what is learned of the prompt, mappings by epoch, losses by step)."""
    prompt = shape(protocol, dtype)
    moments, step = [[torch.zeros_like(one), torch.zeros_like(one)] for one in prompt.learned], 0
    steps_an_epoch = math.ceil(len(labels) / protocol.batch_size)
    total = protocol.steps or protocol.epochs * steps_an_epoch

    def frequency():
        counts = [[0] * classes for _ in range(1000)]
        with torch.no_grad():
            for image, label in zip(images, labels, strict=True):
                predicted = network(prompt.canvases(image[None], mean, std)).argmax(1).item()
                counts[predicted][label.item()] += 1
        return greedy(counts)

    if method == "rlm":
        mapping = torch.randperm(1000, generator=stream(seed, "mapping"))[:classes].tolist()
    elif method == "flm":
        mapping = frequency()
    shuffle = stream(seed, "batches")
    mappings, losses = [], []
    for epoch in range(math.ceil(total / steps_an_epoch)):
        if method == "ilm" and epoch % protocol.mapping_interval == 0:
            mapping = frequency()
        mappings.append(mapping)
        order = torch.randperm(len(labels), generator=shuffle) if protocol.shuffle else torch.arange(len(labels))
        for start in range(0, len(labels), protocol.batch_size):
            if step == total:
                break
            if protocol.steps:
                passed = sum(step >= math.floor(fraction * total) for fraction in protocol.milestones)
            else:
                passed = sum(epoch >= math.floor(fraction * protocol.epochs) for fraction in protocol.milestones)
            rate = protocol.learning_rate * protocol.gamma**passed
            batch = order[start : start + protocol.batch_size]
            logits = network(prompt.canvases(images[batch], mean, std))[:, mapping]
            loss = functional.cross_entropy(logits, labels[batch])
            gradients = torch.autograd.grad(loss, prompt.learned)
            step += 1
            with torch.no_grad():
                for learned, gradient, moment in zip(prompt.learned, gradients, moments, strict=True):
                    first, second = moment
                    moment[0] = first = 0.9 * first + 0.1 * gradient
                    moment[1] = second = 0.999 * second + 0.001 * gradient**2
                    learned -= rate * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
                prompt.after_step()
            losses.append(loss.item())
    return *(one.detach() for one in prompt.learned), mappings, losses
