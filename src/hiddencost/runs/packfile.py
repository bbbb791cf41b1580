"""A pack on disk: its input files, and its table, a row a run, with the request that it answers in its metadata."""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hiddencost.files import atomic, canonical, read_json
from hiddencost.methods.registry import METHODS
from hiddencost.networks.families import family_of

AXES = ["backbone", "dataset", "method", "shots", "seed"]


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


def common(inputs: PackInputs, request: dict) -> dict:
    """Return what the rows of a pack have in common."""
    manifest, verification = read_json(inputs.backbone / "manifest.json"), read_json(inputs.verification)
    return {
        "study": request["study"],
        "checkpoint": manifest["checkpoint"],
        "backbone": request["backbone"],
        "compression": manifest["compression"],
        "control": manifest["control"],
        "sparsity_declared": verification["sparsity_declared"],
        "sparsity_measured": verification["sparsity_measured"],
        "dataset": request["dataset"],
        "seed": request["seed"],
    }


def write_not_run(inputs: PackInputs, request: dict, output: Path) -> bool:
    """Write a pack's rows as not run, with the reason, where its backbone or its dataset has failed, or where label
    mapping has not a source class for each target class.

    Returns whether that was so. See `pack.complete` for the request.
    """
    verification, dataset = read_json(inputs.verification), read_json(inputs.dataset / "dataset.json")
    manifest = read_json(inputs.backbone / "manifest.json")
    mapped = any(METHODS[name].prompts for name, _ in request["runs"])
    sources = family_of(manifest["architecture"]).source_classes(manifest)
    if why := manifest.get("failed"):
        reason = f"the backbone is not there: {why}"
    elif not verification["passed"]:
        reason = "the backbone failed its verification: " + "; ".join(verification["reasons"])
    elif dataset["failed"]:
        reason = f"the dataset is not there: {dataset['failed']}"
    elif mapped and sources and len(dataset["classes"]) > sources:
        reason = (
            f"the dataset has {len(dataset['classes'])} classes, the network {sources}: too few to map one to each"
        )
    else:
        return False
    row = common(inputs, request) | {"status": "not run", "reason": reason}
    write([row | {"method": method, "shots": str(shots)} for method, shots in request["runs"]], request, output)
    return True


def write(rows: list[dict], request: dict, path: Path) -> None:
    """Write rows (dicts of one run each) as parquet."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    table = pa.Table.from_pylist([{key: row.get(key) for key in keys} for row in rows])
    with atomic(path) as temporary:
        pq.write_table(table.replace_schema_metadata({"request": canonical(request)}), temporary)


def stored_request(path: Path) -> dict | None:
    """Return the request that a pack's table answers, or None if there is no table."""
    return json.loads(pq.read_schema(path).metadata[b"request"]) if path.exists() else None
