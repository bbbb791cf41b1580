"""What the catalog says of a checkpoint, a dataset and the photos.

A layout is the part of an entry that what is made of it depends on: titles, licences and citations are not of it.
"""

from typing import Any, Literal, TypeVar

from pydantic import Field

from hiddencost.messages import Record
from hiddencost.sources import SourceFile

UNCOMPRESSED = "none"  # what tables say in the column `compression` of a network without any


class Preprocessing(Record, strict=True):
    """How a network's images were made, from pixels scaled to [0, 1]."""

    mean: list[float] = Field(min_length=3, max_length=3, description="of red, green and blue: taken away")
    std: list[float] = Field(min_length=3, max_length=3, description="of red, green and blue: divided by")
    interpolation: Literal["bilinear", "bicubic"]
    resize: Literal["shortest", "squash"] | None = Field(
        None, description="of a CLIP: how an image becomes its square canvas (see datasets.prepare.pixels)"
    )


class CheckpointLayout(Record, strict=True):
    """What an imported checkpoint depends on."""

    architecture: str
    narrowed_from: str | None = Field(
        None, description="of a network that was pruned in structure, and is narrower by name: its dense architecture"
    )
    format: str = Field(description="a name of hiddencost.networks.formats.registry.READERS")
    preprocessing: Preprocessing
    stem: str | None = Field(description="the network's first convolution; none: found where it is built")
    upstream_top1: float | None = Field(description="accuracy on ImageNet-1k, %, as published; null: not found")
    compression: str = UNCOMPRESSED
    sparsity: float | None = Field(0.0, ge=0, lt=1, description="as published; null: no figure is")
    sparsity_over: str = Field(
        "convolutions", description="the weights that it is of, as the network's family names them"
    )


class CheckpointEntry(CheckpointLayout, strict=True):
    """A checkpoint, published weights."""

    title: str
    label: str | None = Field(None, description="what figures call it where it stands for no compressed network")
    files: dict[str, SourceFile] = Field(description="weights and, of a lottery ticket, mask")
    unavailable: str | None = Field(None, description="why it cannot be downloaded")
    dense: str | None = Field(None, description="the checkpoint of its dense counterpart")
    canvas: int | None = Field(
        None, description="the side of the network's input as published, in pixels; without it, and no CLIP: 224"
    )
    gmacs: float | None = Field(
        description="multiply-adds of the architecture, zeros included, on 224 x 224 pixels, in 1e9; null: unknown"
    )
    weights_mb: float | None = Field(None, description="what weights take as float32, where no size is published")
    licence: str
    citation: str
    read_from: str

    def layout(self) -> CheckpointLayout:
        """Return what an imported checkpoint depends on."""
        return _part(self, CheckpointLayout)


class TrainedEntry(Record, strict=True):
    """A network that the study trains itself, in the place of a published checkpoint."""

    title: str
    label: None = None  # it is called by its name
    architecture: str
    gmacs: float | None = Field(description="as a checkpoint's")
    compression: Literal["none"] = "none"
    sparsity: float = 0.0
    files: dict[str, SourceFile] = Field({}, max_length=0)
    upstream_top1: None = None  # measured: its manifest has it
    preprocessing: None = None
    weights_mb: None = None
    unavailable: None = None


class Counts(Record, strict=True):
    """How many images a dataset has."""

    train: int
    test: int

    @property
    def total(self) -> int:
        """All images."""
        return self.train + self.test


class DatasetLayout(Record, strict=True):
    """What a prepared dataset depends on."""

    reader: str = Field(description="a name of hiddencost.datasets.readers.registry")
    options: dict[str, Any] = Field({}, description="what the reader needs to know, as it declares")
    classes: list[str] | None = Field(description="their names in the order of the labels; null: as the data say")
    counts: Counts | None = Field(description="images; null: as many as there are")
    native_size: int | None = Field(description="side of the images as published, in pixels; null: it varies")
    files_digest: str | None = Field(None, description="of the user's own data: changes with their files")


class DatasetEntry(DatasetLayout, strict=True):
    """A target task."""

    title: str
    label: str | None = Field(None, description="what figures and the report call it; null: by its name")
    files: dict[str, SourceFile]
    unavailable: str | None = Field(None, description="why it cannot be downloaded")
    image_size: int | None = Field(description="side within the canvas in the published study, in pixels")
    split: str = Field(description="which images are for training and which for testing")
    licence: str
    citation: str | None
    read_from: str | None = None
    largest_class: int | None = Field(
        None, description="training images of the largest class: so many shots are all images; null: unknown"
    )
    variant_of: str | None = Field(
        None,
        description="the dataset whose images these are, by another split, host or names: in intervals both are one",
    )

    def layout(self) -> DatasetLayout:
        """Return what the prepared dataset depends on."""
        return _part(self, DatasetLayout)


NetworkEntry = CheckpointEntry | TrainedEntry


class PhotosLayout(Record, strict=True):
    """How photos with known classes are found in their file and shown to a network."""

    member_pattern: str = Field(
        description="the path of a photo in the file, a regular expression with the group `label`, or, of one photo "
        "a class, `wordnet`: the class's WordNet id, whose place in their order is the label"
    )
    count: int
    resize: int = Field(description="the shorter side in pixels, before the crop")
    crop: int = Field(description="the side of the central square, in pixels")


class PhotosEntry(PhotosLayout, strict=True):
    """Photos with known classes of ImageNet-1k."""

    title: str
    files: dict[str, SourceFile]
    licence: str
    citation: str
    unavailable: None = None

    def layout(self) -> PhotosLayout:
        """Return what a network is shown."""
        return _part(self, PhotosLayout)


Layout = TypeVar("Layout", bound=Record)


def _part(entry: Record, layout: type[Layout]) -> Layout:
    fields = {name: getattr(entry, name) for name in layout.model_fields}
    return layout.model_construct(**fields)  # type: ignore[return-value]  # pydantic's plugin says Record
