"""verification.json: what the gate has found of a backbone."""

from pathlib import Path
from typing import Any

from pydantic import Field

from hiddencost.files import read_json, write_json
from hiddencost.messages import Record, validate


class KnownImages(Record):
    """How many images, of what kind, a backbone has classified rightly."""

    top1: int
    count: int
    of: str
    exempt: bool  # a control need not know them


class Fingerprint(Record):
    """The mean, the standard deviation and the first eight of a network's outputs on a fixed input."""

    mean: float
    std: float
    first: list[float]


class VerificationReport(Record):
    """What a backbone is, as measured; of one that could not be measured only why.

    Attributes:
        passed: whether it is what its manifest declares.
        reasons: why not, a line each.
        sparsity_declared: share of zeros, by its manifest, of what this names; None where that is not known.
        sparsity_measured: share of zeros among all weights that pruning reaches.
        sparsity: as `sparsity.measure_sparsity` returns it, of zeros.
        masks: number of `tensors` with a mask and of weights `kept`, and `share_of_...` what the masks leave out.
        keys_matched: number of tensors that were loaded.
        photos: images that it should know: photos or, where the study has trained it, upstream test images.
        fingerprint: None where an output is not finite.
    """

    passed: bool
    reasons: list[str] = Field(default_factory=list)
    sparsity_declared: float | None = None
    sparsity_measured: float | None = None
    sparsity: dict[str, Any] | None = None
    masks: dict[str, int | float] | None = None
    keys_matched: int | None = None
    photos: KnownImages | None = None
    fingerprint: Fingerprint | None = None

    @classmethod
    def read(cls, path: str | Path) -> "VerificationReport":
        """Read the file. Raises ValueError where it is not one."""
        return validate(cls, read_json(path), str(path))

    def write(self, path: str | Path) -> None:
        """Write the file, atomically."""
        write_json(path, self.model_dump(exclude_unset=True))
