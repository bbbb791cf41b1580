"""A pack on disk: its input files, and its table, a row a run, with the request that it answers in its metadata."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from hiddencost.files import atomic, canonical

AXES = ["backbone", "dataset", "method", "shots", "seed"]


class PackRequest(BaseModel):
    """What a pack's table must hold, and what its runs stand on; the table carries it as JSON in its metadata.

    Attributes:
        study, backbone, dataset, seed: whose runs they are.
        recipe: of training, as JSON values: a RunProtocol, RunClipProtocol, Recipe or RunFineTuning (study.recipes).
        canvas: side of the network's input, in pixels.
        images: the name of the folder of its images in what studies share, "" where they are the study's own;
            None of older tables, whose images are in what studies share by the dataset's name.
        size: at which the dataset is prepared, see `datasets.prepare.sized`.
        runs: (method, shots) pairs, shots a number of images per class or "full".
        methods: digest of how each of their methods maps labels, see `jobs.training.method_digest`, by name.
        ledger: folder of the study's finished runs.
        code: digest of the code that trains.
        metrics: digest of the code that scores, see `metrics.digest`.
        origin: digest of the settings and the code that make the pack's inputs.
        names: by method, of those that read the names of classes, digest of the settings and the code that make what
            they read.
    """

    # tables of older versions state more, or less, and must be told from those of today, not refused
    model_config = ConfigDict(frozen=True, extra="ignore")

    study: str
    backbone: str
    dataset: str
    seed: int
    recipe: Mapping[str, Any]
    canvas: int
    images: str | None = None
    size: str
    runs: tuple[tuple[str, int | str], ...]
    methods: Mapping[str, str] = {}
    ledger: str
    code: str = ""
    metrics: str = ""
    origin: str = ""
    names: Mapping[str, str] = {}

    def to_json(self) -> str:
        """Return the request as canonical JSON: the same text for the same request."""
        return canonical(self.model_dump(mode="json"))

    @classmethod
    def from_json(cls, text: str | bytes) -> "PackRequest":
        """Read what `to_json` wrote. Raises ValueError (pydantic's) if a part is missing."""
        return cls.model_validate_json(text)

    def asking(self, runs: tuple[tuple[str, int | str], ...]) -> "PackRequest":
        """Return the same request for other runs, of methods that it knows."""
        methods = {method for method, _ in runs}
        kept = {
            key: {method: digest for method, digest in getattr(self, key).items() if method in methods}
            for key in ("methods", "names")
        }
        return self.model_copy(update={"runs": runs, **kept})

    def stands_on_the_same(self, other: "PackRequest") -> bool:
        """Say whether all that two requests ask for alike would be trained and scored alike."""
        both = self.methods.keys() & other.methods.keys()
        same = all(
            self.methods[one] == other.methods[one] and self.names.get(one) == other.names.get(one) for one in both
        )
        return same and self.asking(()) == other.asking(())


def settled(wanted: PackRequest, stored: PackRequest | None) -> PackRequest:
    """Return the request to make a pack for: what is wanted, or what the table answers if that is all of it and more.

    So a value that is taken out of a study does not make its tables stale.
    """
    if stored and stored.asking(wanted.runs) == wanted and set(wanted.runs) <= set(stored.runs):
        return stored
    return wanted


def why_stale(stored: PackRequest | None, wanted: PackRequest) -> str | None:
    """Say in plain words how code that has changed makes a pack's table stale.

    Args:
        stored: the request that the table answers, None where there is no table.
        wanted: the request that it should answer.

    Returns:
        What is said of its runs ("were trained by an older version of the code: they are trained anew"), or None
        where there is no table, where it is up to date, and where something else than code differs.
    """
    if stored is None:
        return None
    digests = {"code": "", "metrics": "", "origin": ""}
    settings = [request.asking(()).model_copy(update=digests) for request in (stored, wanted)]
    if settings[0] != settings[1]:
        return None
    both = stored.methods.keys() & wanted.methods.keys()
    if stored.code != wanted.code:
        return "were trained by an older version of the code: they are trained anew"
    if changed := sorted(method for method in both if stored.methods[method] != wanted.methods[method]):
        of_methods = f"by older code, or other settings, of {', '.join(changed)}"
        return f"were trained {of_methods}: the runs of these methods are trained anew"
    if stored.origin != wanted.origin or any(stored.names.get(one) != wanted.names.get(one) for one in both):
        return (
            "stand on networks, images, splits or names of classes that older code or other settings made: "
            "those of them whose inputs changed are trained anew"
        )
    if stored.metrics != wanted.metrics:
        return "were scored by an older version of the metrics: they are scored anew, and not trained"
    return None


@dataclass
class PackInputs:
    """The files of a pack: folders of the backbone and the dataset, verification.json and the split."""

    backbone: Path
    verification: Path
    dataset: Path
    split: Path

    @classmethod
    def of(cls, files: Any) -> "PackInputs":
        """Take them from named input files: a list of files stands for the folder that they are in."""
        names = [field.name for field in fields(cls)]
        values = {name: getattr(files, name) for name in names}
        return cls(**{n: Path(v) if isinstance(v, str) else Path(v[0]).parent for n, v in values.items()})


def write(rows: list[dict], request: PackRequest, path: Path) -> None:
    """Write rows (dicts of one run each) as parquet."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    table = pa.Table.from_pylist([{key: row.get(key) for key in keys} for row in rows])
    with atomic(path) as temporary:
        pq.write_table(table.replace_schema_metadata({"request": request.to_json()}), temporary)


def stored_request(path: Path) -> PackRequest | None:
    """Return the request that a pack's table answers, or None if there is no table, or one that states no request."""
    if not path.exists():
        return None
    try:
        return PackRequest.from_json((pq.read_schema(path).metadata or {}).get(b"request", b""))
    except ValueError:  # pydantic's, or pyarrow's of a file that is damaged
        return None


def runs_of(path: Path) -> set[str]:
    """Return the identities of the finished runs of a pack's table."""
    column = "run"
    names = pq.read_schema(path).names
    return set(pq.read_table(path, columns=[column])[column].to_pylist()) - {None} if column in names else set()


def finished_runs(ledger: str | Path) -> set[str]:
    """Return the identities of all runs that a ledger holds."""
    return {entry.stem for entry in Path(ledger).glob("?/*.safetensors")}


def unfinished(request: PackRequest) -> Path:
    """Return the file of a pack's runs under way."""
    return Path(request.ledger, "unfinished", request.backbone, request.dataset, f"seed{request.seed}.states")


def events(request: PackRequest) -> Path:
    """Return the folder of a pack's events for TensorBoard, see `logs.write_scalars`."""
    study = Path(request.ledger).parent
    return study / "tensorboard" / request.backbone / request.dataset / f"seed{request.seed}"
