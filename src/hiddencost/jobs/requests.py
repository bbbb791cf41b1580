"""What each product was made for: the params and the inputs of its job, kept with the products of the study.

Snakemake's own records of that are in .snakemake/, which a copied folder of results does not have, and which another
copy of the results may not fit. So a product is held against its request alone: where it has none, or is not the file
that the request is of, nobody knows what it was made for, and it is made again.
"""

from collections.abc import Iterable
from functools import cache
from pathlib import Path

from hiddencost.files import read_json, sha256_file, write_json
from hiddencost.jobs import damage, training
from hiddencost.jobs.call import Call
from hiddencost.messages import Record

LARGE = 1_000_000  # bytes: of larger files the size alone is looked at; a report beside them has their hashes
FOLDER = "requests"


class Request(Record):
    """What a product was made for.

    Attributes:
        params: of its job, as Snakemake states them.
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


def content(path: str) -> str:
    """Return what tells a file's content from another's: its SHA-256, or of a large one its size."""
    if not Path(path).is_file():
        return ""
    size = Path(path).stat().st_size
    return f"size:{size}" if size > LARGE else f"sha256:{sha256_file(path)}"


_content_now = cache(content)  # of the files as they are when a call is planned: many products have the same inputs


def keep(products: Iterable[str], params: list[str], inputs: list[str]) -> None:
    """Keep what products have been made for."""
    read_anew()
    contents = {path: content(path) for path in inputs}
    for product in filter(lambda product: Path(product).is_file(), products):
        request = Request(params=params, inputs=contents, product=content(product))
        write_json(file_of(product), request.model_dump())


def forget(products: Iterable[str]) -> None:
    """Remove the requests of products that are about to be made: what a killed job leaves has none."""
    read_anew()
    for product in products:
        file_of(product).unlink(missing_ok=True)


def stored(product: str) -> Request | None:
    """Return what a product was made for, None where nobody knows: there is no request, or one of another file."""
    try:
        request = Request.model_validate(read_json(file_of(product)))
    except (FileNotFoundError, ValueError):
        return None
    return request if request.product == _content_now(product) else None


def changed_inputs(request: Request) -> list[str]:
    """Return the inputs of a product that hold something else now, whatever their time stamps; none that are gone."""
    return [path for path, was in request.inputs.items() if _content_now(path) not in ("", was)]


@cache  # Snakemake asks some ten times for each product
def as_recorded(call: Call, product: str) -> dict:
    """Return what a product was made for as Snakemake's records have it: `params`, `input` and `input_checksums`.

    What is not as it was stands among the params, where Snakemake finds it changed and tells it.
    """
    if not Path(product).exists():
        return {}
    request = stored(product)
    if request is None:
        return {"params": ["nobody knows what it was made for"], "input": None, "input_checksums": {}}
    changed = [f"{path} as it was then" for path in changed_inputs(request)]
    if why := damage.why_again(call, product):
        changed.append(why)
    if training.has_lost_runs(call, product):
        changed.append("runs that the ledger does not hold any more")
    hashes = {path: was for path, was in request.inputs.items() if was.startswith("sha256:")}
    return {"params": request.params + changed, "input": sorted(request.inputs), "input_checksums": hashes}


def read_anew() -> None:
    """Forget what was read of files, as they may change."""
    _content_now.cache_clear()
    as_recorded.cache_clear()
