"""manifest.json: what a backbone is, where it comes from and what it declares."""

from pathlib import Path
from typing import Any

from pydantic import Field

from hiddencost.catalog.entries import UNCOMPRESSED, Preprocessing
from hiddencost.files import read_json, write_json
from hiddencost.messages import Record, validate


class Manifest(Record):
    """A backbone's manifest. A field that was not set is not written.

    Attributes:
        checkpoint: its name, in the catalog or in the study that has trained it.
        architecture: see `build.build`.
        preprocessing: of its images.
        stem: the name of its first convolution, None where none is named.
        upstream_top1: accuracy on its upstream test images, %, as published or measured; None where it is not known.
        compression: as tables name it, "none" of a dense network.
        sparsity_declared: share of zeros among the weights that `sparsity_over` names; None where it was not
            published and could not be measured.
        sparsity_over: a name of `Family.sparsity_groups`.
        source_sha256: of the files that it was read from, by their keys in the catalog.
        upstream: of a network that a study has trained: how.
        classes: of a network that a study has trained: the names of its source classes.
        widths: of blocks that are narrower than the architecture's, see `clip.model.build`.
        narrowed_from: the dense architecture, where the architecture is itself the narrower one.
        keys: number of tensors.
        report: what its format's reader has counted.
        weights_sha256, masks_sha256: of its files.
        compression_settings: of a compression made here, complete.
        quantisation_bits: of a quantisation made here.
        control: a name of `compression.registry.CONTROLS`.
        failed: why it could not be made.
        keys_matched: number of tensors that `backbones.load` has loaded; never written.
    """

    checkpoint: str
    architecture: str
    preprocessing: Preprocessing
    stem: str | None = None
    upstream_top1: float | None = None
    compression: str = UNCOMPRESSED
    sparsity_declared: float | None = 0.0
    sparsity_over: str = "convolutions"
    source_sha256: dict[str, str] = Field(default_factory=dict)
    upstream: dict[str, Any] | None = None
    classes: list[str] | None = None
    widths: dict[str, list[int]] | None = None
    narrowed_from: str | None = None
    keys: int | None = None
    report: dict[str, Any] | None = None
    weights_sha256: str | None = None
    masks_sha256: str | None = None
    compression_settings: dict[str, Any] | None = None
    quantisation_bits: int | None = None
    control: str | None = None
    failed: str | None = None
    keys_matched: int | None = Field(None, exclude=True)

    @classmethod
    def read(cls, folder: str | Path) -> "Manifest":
        """Read the manifest of a backbone's folder. Raises ValueError, with the file and the key, if it is none."""
        path = Path(folder) / "manifest.json"
        return validate(cls, read_json(path), str(path))

    def write(self, folder: str | Path) -> None:
        """Write it into a backbone's folder, atomically."""
        write_json(Path(folder) / "manifest.json", self.model_dump(exclude_unset=True))

    @property
    def whole(self) -> str | None:
        """The architecture of which the network lacks weights, as it is narrower; None where it has them all."""
        return self.narrowed_from or (self.architecture if self.widths else None)

    @property
    def sha256(self) -> dict[str, str]:
        """The SHA-256 of the files beside it, by their names; "" where it does not say."""
        return {f"{name}.safetensors": getattr(self, f"{name}_sha256") or "" for name in ("weights", "masks")}

    def replace(self, **values: Any) -> "Manifest":
        """Return it with other values."""
        return Manifest(**self.model_dump(exclude_unset=True) | values)
