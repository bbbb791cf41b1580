"""The entries of networks of one's own: what their files are, as they are found when a call is planned."""

from contextlib import suppress

from pydantic import ValidationError

from hiddencost import contents
from hiddencost.catalog.entries import UNCOMPRESSED, CheckpointEntry
from hiddencost.catalog.libraries import preset
from hiddencost.digest import code_digest
from hiddencost.files import atomic, canonical, own_path, sha256_text
from hiddencost.networks import look
from hiddencost.networks.families import family_of
from hiddencost.networks.formats.registry import READERS
from hiddencost.sources import Source, SourceFile
from hiddencost.study.own import OwnNetwork

FORMAT, PRUNED = "own", "pruned"


def own_entry(name: str, own: OwnNetwork, check: bool) -> CheckpointEntry:
    """Return an entry, as of the catalog, for a network of one's own: its sparsity as it is measured, its
    preprocessing as stated or by its library.

    Args:
        name: of its checkpoint.
        own: its file and architecture.
        check: whether the file is read also where it seems to be as it was, see `contents.hashed`.

    Raises:
        ValueError: in a line: there is no such file, it is none of that architecture, or nobody states how its images
            are made.
    """
    path, stated = own_path(own.file), preset(own.architecture)
    found = _found(str(path), own.architecture, check)
    preprocessing = own.preprocessing or stated.preprocessing
    if preprocessing is None:
        raise ValueError(
            f"no library states how the images of {own.architecture} are made; expected preprocessing, such as "
            "{mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225], interpolation: bilinear}"
        )
    return CheckpointEntry(
        title=f"{name}, the user's own: {own.architecture}",
        architecture=own.architecture,
        format=FORMAT,
        files={"weights": SourceFile(name="weights", sources=[Source(path=str(path))])},
        preprocessing=preprocessing,
        canvas=stated.canvas,
        stem=found.stem,
        upstream_top1=None,
        compression=PRUNED if found.is_pruned else UNCOMPRESSED,
        sparsity=found.sparsity,
        sparsity_over=family_of(own.architecture).sparsity_over,
        gmacs=None,  # counted where a study is planned
        licence="the user's own",
        citation="the user's own",
        read_from="the user's own file",
    )


def _found(path: str, architecture: str, check: bool) -> look.Found:
    """Return what is found of a file: read anew where it, or the code that reads it, is another."""
    code = code_digest(look.__file__, READERS[FORMAT].file)
    asked = canonical([contents.digest(path, full=check), architecture, code])
    record = contents.RECORDS / f"{sha256_text(asked)[:16]}.network.json"
    try:
        return look.Found.model_validate_json(record.read_bytes())
    except (OSError, ValidationError):  # none, or damaged
        found = look.look(path, architecture)
    with suppress(OSError), atomic(record) as temporary:
        temporary.write_text(found.model_dump_json())
    return found
