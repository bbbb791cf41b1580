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


def train(network, images, labels, classes, method, seed, protocol, mean, std, dtype):
    """Returns (prompt, mappings by epoch, losses by step)."""
    size = protocol.canvas
    prompt = torch.zeros(3, size, size, dtype=dtype, requires_grad=True)
    first, second, step = torch.zeros_like(prompt), torch.zeros_like(prompt), 0
    steps_an_epoch = math.ceil(len(labels) / protocol.batch_size)
    total = protocol.steps or protocol.epochs * steps_an_epoch

    def frequency():
        counts = [[0] * classes for _ in range(1000)]
        with torch.no_grad():
            for image, label in zip(images, labels, strict=True):
                predicted = network(canvas_of(image[None], prompt, size, mean, std)).argmax(1).item()
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
            logits = network(canvas_of(images[batch], prompt, size, mean, std))[:, mapping]
            loss = functional.cross_entropy(logits, labels[batch])
            (gradient,) = torch.autograd.grad(loss, prompt)
            step += 1
            first = 0.9 * first + 0.1 * gradient
            second = 0.999 * second + 0.001 * gradient**2
            with torch.no_grad():
                update = (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
                prompt -= rate * update
            losses.append(loss.item())
    return prompt.detach(), mappings, losses
