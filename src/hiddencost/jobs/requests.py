"""What each product was made for: the params and the inputs of its job, kept with the products of the study.

Snakemake's own records of that are in .snakemake/, which a copied folder of results does not have, and which another
copy of the results may not fit. So a product is held against its request alone: where it has none, or is not the file
that the request is of, nobody knows what it was made for, and it is made again.
"""

import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from hiddencost import contents
from hiddencost.files import read_json, write_json
from hiddencost.jobs import damage, training
from hiddencost.jobs.call import Call
from hiddencost.messages import Record

LARGE = 1_000_000  # bytes: what is in larger files is kept, and read again where their status is another
FOLDER = "requests"


class Request(Record):
    """What a product was made for.

    Attributes:
        params: of its job, each "name=value": see `values`.
        inputs: what was in the files that its job read, by their paths: see `content`; "" of one that was not there.
        product: what is in it.
    """

    params: list[str]
    inputs: dict[str, str]
    product: str


def file_of(product: str) -> Path:
    """Return the file of a product's request: in a folder of the study, or of what studies share."""
    parts = Path(product).parts
    depth = 2 if parts[0] == "results" else 1
    return Path(*parts[:depth], FOLDER, *parts[depth:-1], f"{parts[-1]}.json")


def content(path: str, full: bool = False) -> str:
    """Return what tells a file's content from another's: its SHA-256, "" where there is no file, or why it cannot be
    read.

    full: whether it is read whatever its status says, see `contents.hashed`.
    """
    is_large = os.path.exists(path) and os.path.getsize(path) > LARGE
    found = contents.hashed(path, [""], full=full)[""] if is_large else contents.sha256(path)
    return "" if found in contents.NO_FILE else found


_content_now = cache(content)  # of the files as they are when a call is planned: many products have the same inputs
_read_by_jobs: dict[str, dict[str, str]] = {}  # what was in the inputs of jobs under way when they began, by product


def begin(products: Iterable[str], inputs: Iterable[str]) -> None:
    """Note what a job reads that begins, and remove the requests of its products: what a killed one leaves has
    none."""
    read_anew()
    read = {path: content(path) for path in inputs}
    for product in products:
        _read_by_jobs[product] = read
        file_of(product).unlink(missing_ok=True)


def keep(products: Iterable[str], params: list[str], inputs: Iterable[str]) -> None:
    """Keep what products have been made for: of inputs what was in them when the job began, which may have read
    them then."""
    read_anew()
    begun = {product: _read_by_jobs.pop(product, {}) for product in products}
    # jobs of a group begin together and end in any order: what one makes for another was not there, or an older one
    for read in _read_by_jobs.values():
        for product in begun:
            read.pop(product, None)
    for product, read in begun.items():
        if Path(product).is_file():
            known = read.keys() - _read_by_jobs.keys()
            was = {path: read[path] if path in known else content(path) for path in inputs}
            write_json(file_of(product), Request(params=params, inputs=was, product=content(product)).model_dump())


def stored(call: Call, product: str) -> Request | None:
    """Return what a product was made for, None where nobody knows: there is no request, or one of another file."""
    try:
        request = Request.model_validate(read_json(file_of(product)))
    except (OSError, ValueError):
        return None
    if request.product != _content_now(product, call.check):
        return None
    return request if training.answers(call, product, request.params) else None


def changed_inputs(call: Call, request: Request) -> list[str]:
    """Return the inputs of a product that hold something else now, whatever their time stamps; none that are gone."""
    return [path for path, was in request.inputs.items() if _content_now(path, call.check) not in ("", was)]


@cache  # Snakemake asks some ten times for each product
def as_recorded(call: Call, product: str) -> dict:
    """Return what a product was made for, by the names of Snakemake's records: `params` and `input`.

    What is not as it was stands among the params, where Snakemake finds it changed and tells it.
    """
    if not os.path.exists(product):
        return {}
    request = stored(call, product)
    if request is None:
        return {"params": ["nobody knows what it was made for"], "input": None}
    changed = [f"{path} as it was then" for path in changed_inputs(call, request)]
    if why := damage.why_again(call, product):
        changed.append(why)
    if training.has_lost_runs(call, product):
        changed.append("runs that the ledger does not hold any more")
    return {"params": request.params + changed, "input": sorted(request.inputs)}


def is_current(call: Call, product: str, params: Iterable[str]) -> bool:
    """Return whether a product is there, and was made for these params of what its inputs hold now."""
    return set(as_recorded(call, product).get("params", [])) == set(params)


def read_anew() -> None:
    """Forget what was read of files, as they may change."""
    _content_now.cache_clear()
    as_recorded.cache_clear()
