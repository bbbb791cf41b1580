"""The published algorithm, written plainly: the oracle of the engine's tests.

One batch at a time through the unfolded network in PyTorch's default layout, an explicit canvas, an
explicit loop for the mapping and Adam written out from its paper.
"""

import math

import torch
from torch import nn
from torch.nn import functional
from torchvision.transforms.v2 import functional as functional_of_images

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


def bayesian(joint):
    """Weights [K][source] of joint counts or probabilities [source][K]: BLM's, of equations 4 to 6 and the published
    code, with lambda = 1."""
    sources, targets = len(joint), len(joint[0])
    conditional = [[joint[i][j] / (sum(joint[i]) + 1) for j in range(targets)] for i in range(sources)]
    totals = [sum(conditional[i][j] for i in range(sources)) for j in range(targets)]
    return [[conditional[i][j] / totals[j] for i in range(sources)] for j in range(targets)]


def joint_of(all_logits, labels, classes, highest=None):
    """Counts of predictions, or sums of the probabilities of so many of the highest source classes: [source][K]."""
    joint = [[0.0] * classes for _ in range(len(all_logits[0]))]
    for logits, label in zip(all_logits, labels, strict=True):
        if highest is None:
            joint[logits.argmax().item()][label] += 1
        else:
            probabilities = logits.exp() / logits.exp().sum()
            for place in probabilities.argsort(descending=True)[:highest].tolist():
                joint[place][label] += probabilities[place].item()
    return joint


def semantic(similarities):
    """AutoVP's Semantic_mapping with one source class each: each row, in turn, has the first of its sorted entries
    that is free."""
    is_taken, mapping = [False] * len(similarities[0]), []
    for row in similarities:
        for source in sorted(range(len(row)), key=lambda source, row=row: -row[source]):
            if not is_taken[source]:
                is_taken[source] = True
                mapping.append(source)
                break
    return mapping


class Adam:
    def __init__(self, parameter):
        self.parameter, self.step = parameter, 0
        self.first, self.second = torch.zeros_like(parameter), torch.zeros_like(parameter)

    def update(self, gradient, rate):
        self.step += 1
        self.first = 0.9 * self.first + 0.1 * gradient
        self.second = 0.999 * self.second + 0.001 * gradient**2
        with torch.no_grad():
            mean, scale = self.first / (1 - 0.9**self.step), self.second / (1 - 0.999**self.step)
            self.parameter -= rate * mean / (scale.sqrt() + 1e-8)


class Border:
    """The prompt of ILM-VP: what is learned of it, how it is put around images, what is done to it after a step."""

    def __init__(self, protocol, dtype):
        self.size = protocol.canvas
        self.learned = [torch.zeros(3, self.size, self.size, dtype=dtype, requires_grad=True)]

    def canvases(self, images, mean, std):
        return canvas_of(images, *self.learned, self.size, mean, std)

    def in_training(self, images, mean, std, seed, step):
        return self.canvases(images, mean, std)

    def after_step(self):
        pass

    def rates(self, protocol, passed):
        return [protocol.learning_rate * protocol.gamma**passed for _ in self.learned]


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


class Masked(Border):
    """SMM's: the pattern is added under a mask that a small network makes of the image."""

    def __init__(self, protocol, dtype):
        super().__init__(protocol, dtype)
        self.patch, layers, channels = protocol.patch, [], 3
        for number in range(protocol.layers - 1):
            layers += [nn.Conv2d(channels, 8 * 2**number, 3, padding=1), nn.BatchNorm2d(8 * 2**number), nn.ReLU()]
            layers += [nn.MaxPool2d(2)] if protocol.patch >= 2 ** (number + 1) else []
            channels = 8 * 2**number
        self.network = nn.Sequential(*layers, nn.Conv2d(channels, 3, 3, padding=1)).to(dtype).train()
        generator = stream(3, "prompt")
        with torch.no_grad():
            for layer in self.network:
                if isinstance(layer, nn.Conv2d):  # as it draws them itself
                    bound = 1 / math.sqrt(layer.in_channels * 9)
                    for one in (layer.weight, layer.bias):
                        one.copy_(torch.empty(one.shape).uniform_(-bound, bound, generator=generator))
        self.learned += self.network.parameters()

    def under_masks(self, images, mean, std):
        mean, std = (torch.tensor(values, dtype=self.learned[0].dtype).view(1, 3, 1, 1) for values in (mean, std))
        images = (images.to(mean.dtype) / 255 - mean) / std
        masks, of_pixel = self.network(images), torch.arange(self.size) // self.patch
        return images + self.learned[0] * masks[:, :, of_pixel][:, :, :, of_pixel]

    def canvases(self, images, mean, std):
        self.network.eval()
        return self.under_masks(
            functional_of_images.resize(images, [self.size, self.size], antialias=True), mean, std
        )

    def in_training(self, images, mean, std, seed, step):
        generator, views = stream(seed, f"augmentation of step {step}"), []
        larger = functional_of_images.resize(images, [self.size + 32, self.size + 32], antialias=True)
        rows, columns = torch.randint(33, (2, len(images)), generator=generator).tolist()
        mirrored = torch.randint(2, (1, len(images)), generator=generator)[0].tolist()
        for image, row, column, mirror in zip(larger, rows, columns, mirrored, strict=True):
            view = image[:, row : row + self.size, column : column + self.size]
            views.append(view.flip(2) if mirror else view)
        self.network.train()
        return self.under_masks(torch.stack(views), mean, std)

    def rates(self, protocol, passed):
        mask = protocol.mask_learning_rate * protocol.mask_gamma**passed
        return [*super().rates(protocol, passed)[:1], *(mask for _ in self.learned[1:])]


def train(
    network, images, labels, classes, method, seed, protocol, mean, std, dtype, shape=Border, similarities=None
):
    """Returns (what is learned of the prompt, mappings by epoch, losses by step)."""
    prompt = shape(protocol, dtype)
    adams, layer, step = [Adam(one) for one in prompt.learned], None, 0
    steps_an_epoch = math.ceil(len(labels) / protocol.batch_size)
    total = protocol.steps or protocol.epochs * steps_an_epoch

    def frequency():
        counts = [[0] * classes for _ in range(1000)]
        with torch.no_grad():
            for image, label in zip(images, labels, strict=True):
                predicted = network(prompt.canvases(image[None], mean, std)).argmax(1).item()
                counts[predicted][label.item()] += 1
        return greedy(counts)

    def weights():
        with torch.no_grad():
            logits = network(prompt.canvases(images, mean, std))
        highest = {"blm": None, "blm+": max(1, int(0.15 * classes))}[method]
        return torch.tensor(bayesian(joint_of(logits, labels.tolist(), classes, highest)), dtype=dtype)

    if method == "rlm":
        mapping = torch.randperm(1000, generator=stream(seed, "mapping"))[:classes].tolist()
    elif method == "flm":
        mapping = frequency()
    elif method == "sem":
        mapping = semantic(similarities.tolist())
    elif method == "fm":
        with torch.random.fork_rng():
            torch.manual_seed(stream(seed, "mapping").initial_seed())
            layer = torch.nn.Linear(1000, classes).to(dtype)
        adams_of_layer = [Adam(one) for one in layer.parameters()]
    shuffle = stream(seed, "batches")
    mappings, losses = [], []
    for epoch in range(math.ceil(total / steps_an_epoch)):
        if method == "ilm" and epoch % protocol.mapping_interval == 0:
            mapping = frequency()
        if method in ("blm", "blm+") and epoch % protocol.mapping_interval == 0:
            mapping = weights()
        if layer is None:
            mappings.append(mapping.argmax(1).tolist() if method.startswith("blm") else mapping)
        order = torch.randperm(len(labels), generator=shuffle) if protocol.shuffle else torch.arange(len(labels))
        for start in range(0, len(labels), protocol.batch_size):
            if step == total:
                break
            if protocol.steps:
                passed = sum(step >= math.floor(fraction * total) for fraction in protocol.milestones)
            else:
                passed = sum(epoch >= math.floor(fraction * protocol.epochs) for fraction in protocol.milestones)
            batch = order[start : start + protocol.batch_size]
            logits = network(prompt.in_training(images[batch], mean, std, seed, step))
            if layer:
                logits = layer(logits)
            elif isinstance(mapping, list):
                logits = logits[:, mapping]
            else:
                logits = logits @ mapping.T
            loss = functional.cross_entropy(logits, labels[batch])
            trained = [*adams, *(adams_of_layer if layer else [])]
            gradients = torch.autograd.grad(loss, [one.parameter for one in trained])
            step += 1
            rates = prompt.rates(protocol, passed) + [1e-3 * protocol.gamma**passed] * len(trained[len(adams) :])
            for one, gradient, rate in zip(trained, gradients, rates, strict=True):
                one.update(gradient, rate)
            with torch.no_grad():
                prompt.after_step()
            losses.append(loss.item())
        if layer:
            mappings.append(layer.weight.argmax(1).tolist())
    return *(one.detach() for one in prompt.learned), mappings, losses
