"""A pack's table on disk: a row a run, with the request that it answers in its metadata."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from hiddencost.files import atomic, canonical


def write(rows: list[dict], request: dict, path: Path) -> None:
    """Write rows (dicts of one run each) as parquet."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    table = pa.Table.from_pylist([{key: row.get(key) for key in keys} for row in rows])
    with atomic(path) as temporary:
        pq.write_table(table.replace_schema_metadata({"request": canonical(request)}), temporary)


def stored_request(path: Path) -> dict | None:
    """Return the request that a pack's table answers, or None if there is no table."""
    return json.loads(pq.read_schema(path).metadata[b"request"]) if path.exists() else None
