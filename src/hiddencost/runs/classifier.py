"""What a run has learned, as a torch module that classifies images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.nn.functional import pad
from torchvision.transforms.v2 import functional

from hiddencost.datasets.prepare import pixels, sized
from hiddencost.datasets.readers.image import open_image
from hiddencost.methods.registry import METHODS
from hiddencost.networks import backbones, layers
from hiddencost.prompting.maps import SharedMaps
from hiddencost.prompting.matrix import map_logits
from hiddencost.prompting.prompts import shape_of
from hiddencost.runs import saved

Photo = Image.Image | str | Path


class TrainedClassifier(nn.Module):
    """A frozen network with a run's prompt and label mapping around it, or with its linear probe as the last layer.

    `torch.export` and `torch.onnx.export` take it, also with a batch of any size; the side of the images is then that
    of the example that they are given.

    Attributes:
        classes: the names of the target classes.
        run: what the study's table says of the run: backbone, dataset, method, shots, seed, accuracy, ...
        prompt: W, float32 [3, S, S].
        mapping: the network's class that stands for each target class, int64 [K], or the weights of all of them
            (`prompting.matrix`): [K, source classes], of fm with a bias as one more column.
    """

    prompt: Tensor
    mapping: Tensor
    mask: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, about: dict):
        """Put a network in place; `prompt`, `mapping` and a probe's new layer are to be filled in.

        Args:
            network: the frozen network; of a CLIP, a classifier over texts.
            about: `architecture`, `preprocessing`, `classes`, `run`, `size` (of its images, see `prepare.sized`),
                `prompt` (its shape, of `PROMPTS`) and the fields of that, such as `canvas`.
        """
        super().__init__()
        self.about, self.classes, self.run = about, about["classes"], about["run"]
        self.size, self.shape = sized(about["size"]), shape_of(about["prompt"]).of(about)
        method, count = METHODS[self.run["method"]], len(self.classes)
        shape = method.shape_of_mapping(layers.head_of(network).out_features, count)
        if method.probes:  # its image fills the canvas: no border is left to prompt
            name, old = layers.head_name(network), layers.head_of(network)
            network.set_submodule(name, nn.Linear(old.in_features, count, method.trains))
        self.network = network
        learned = self.shape.new()
        self.learned = tuple(learned)  # names of the prompt's buffers
        for name, tensor in learned.items():
            self.register_buffer(name, tensor)
        self.register_buffer("mapping", torch.zeros(shape) if method.weighted else torch.arange(count))
        constants = (about["preprocessing"][key] for key in ("mean", "std"))
        fixed = self.shape.mask(), *(backbones.per_channel(values, torch.device("cpu")) for values in constants)
        for name, tensor in zip(("mask", "mean", "std"), fixed, strict=True):
            self.register_buffer(name, tensor, persistent=False)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """See nn.Module.train. The network stays in evaluation mode: its weights are frozen, and so are the
        statistics of its batch norms, which training mode would move with each batch."""
        super().train(mode)
        self.network.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits over the target classes, [N, K].

        Args:
            images: RGB, [N, 3, H, W], or grey, [N, 1, H, W]: uint8, or floating point from 0 to 1, not normalised.
                Those of another size are resized as the study's were, see `prepare.pixels`. `transform` makes them of
                photos. Gradients flow back to those of floating point.

        Raises:
            ValueError: for images of another shape, type or range.
        """
        _check(images)
        if images.is_floating_point():
            images = images * 255
        side, resize, interpolation = self.size
        mode = functional.InterpolationMode(interpolation)
        images = functional.resize(images, side if resize == "shortest" else [side, side], mode, antialias=True)
        images = functional.center_crop(images, [side, side])
        if images.is_floating_point():
            images = images.clamp(0, 255)  # bicubic interpolation goes beyond, and cuts integers off itself
        images = images.expand(-1, 3, -1, -1)
        runs = images.new_zeros(images.shape[0], dtype=torch.int64)
        prompts = {name: self.get_buffer(name)[None] for name in self.learned}
        canvases = self.shape.compose(images, prompts, runs, self.mask, self.mean, self.std)
        return map_logits(self.network(_whole(canvases)), self.mapping)

    def transform(self, photos: Photo | Sequence[Photo]) -> Tensor:
        """Return photos as the study had its images, for the model: uint8 [3, S, S] of one, [N, 3, S, S] of several.

        Args:
            photos: a PIL image or the path of one, or a list of these, of any sizes. Files are read as a study reads
                the user's own (`readers.image`). PIL images of 8 bits become RGB as Pillow has it, upright by their
                EXIF.

        Raises:
            ValueError: for anything else, an image of more bits, or a file that cannot be read as an image.
            OSError: for what is wrong with the machine, and not with a file.
        """
        if isinstance(photos, list | tuple) and photos:
            return torch.stack([self._prepared(photo) for photo in photos])
        return self._prepared(photos)

    def _prepared(self, photo: object) -> Tensor:
        return torch.from_numpy(pixels(_opened(photo), self.about["size"]).copy())

    def save(self, path: str | Path) -> None:
        """Write one file with all that it takes, the network's weights included; `hiddencost.load(path)` reads it."""
        state = {key: tensor.contiguous() for key, tensor in backbones.weights_of(self.state_dict()).items()}
        saved.write(path, self.about, {key: tensor.cpu() for key, tensor in state.items()})


def _check(images: Tensor) -> None:
    """Raise ValueError for what is no batch of images, see `TrainedClassifier.forward`."""
    is_float = images.is_floating_point()
    found = f"{str(images.dtype).removeprefix('torch.')} {list(images.shape)}"
    expected = "expected [N, 3, H, W], or of grey [N, 1, H, W], of uint8 or of floating point from 0 to 1"
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not (is_float or images.dtype == torch.uint8):
        raise ValueError(f"images: {found}; {expected}")
    # exported, a program has no words for it
    if is_float and not torch.compiler.is_compiling() and not ((images >= 0) & (images <= 1)).all():
        low, high = images.min().item(), images.max().item()
        raise ValueError(f"images: {found}, from {low:.3g} to {high:.3g}; {expected}, not normalised")


def _opened(photo: object) -> Image.Image:
    if isinstance(photo, str | Path):
        return open_image(photo)
    if not isinstance(photo, Image.Image):
        given = "an empty list" if isinstance(photo, list | tuple) and not photo else type(photo).__name__
        raise ValueError(f"photos: {given}; expected a PIL image, the path of one, or a list of these")
    if photo.mode.startswith(("I", "F")):
        raise ValueError(
            f"photos: a PIL image of mode {photo.mode}; expected 8 bits a pixel, or the path of its file"
        )
    return ImageOps.exif_transpose(photo)


def _whole(canvases: SharedMaps | Tensor) -> Tensor:
    """Return whole canvases, as `maps.paste` does, by what exporters know: the border is 0 where the patch is."""
    if isinstance(canvases, Tensor):
        return canvases
    (top, bottom), (left, right) = canvases.window
    height, width = canvases.border.shape[2:]
    return canvases.border + pad(canvases.patch, (left, width - right, top, height - bottom))
