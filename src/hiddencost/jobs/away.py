"""What would have to be made of files of the user's own that are gone, as a disk is not mounted: told in the plan.

What was made of them stays as it is, see `Call._seen`. Jobs that are planned where the files are fail where they are
gone, and write nothing. Data sets of the user's own: see `datasets.prepared_here`.
"""

from collections.abc import Iterator, Mapping

from hiddencost.catalog.entries import CheckpointEntry, DatasetEntry, PhotosEntry
from hiddencost.files import is_away
from hiddencost.jobs import checkpoints, downloads, layout, places, requests, upstream, values
from hiddencost.jobs.call import Call, code
from hiddencost.jobs.grid import left_out
from hiddencost.messages import StudyError, one_line

Made = tuple[str, str, dict, tuple[str, ...]]  # product, script of its job, its settings, the names of these


def refuse_unmade(call: Call) -> None:
    """Raise StudyError, one line, where something that is not there, or not what the study asks for, can be made of
    files alone that are gone. A job is not asked, nor a partial call, which makes nothing of them."""
    if call.is_job or call.partial:
        return
    for what, path, made in [*_of_paths(call), *_of_upstream_folders(call)]:
        for product, script, settings, names in made:
            asked = [*values.texts(settings, names).values(), values.text("code", code(call.root, script))]
            if not requests.is_current(call, product, asked):
                expected = f"expected it, as {product} has to be made"
                raise StudyError(one_line(f"{call.file}: {what}: there is no {path}; {expected}"))


def _of_paths(call: Call) -> Iterator[tuple[str, str, list[Made]]]:
    """Yield each file of the user's own that is gone, after what it is called, and what is made of it."""
    kinds: dict[str, Mapping[str, CheckpointEntry | DatasetEntry | PhotosEntry]]
    photos = {call.study.verification.photos: call.study.photos_entry()}
    kinds = {"checkpoints": call.published, "datasets": call.datasets, "photos": photos}
    for kind, entries in kinds.items():
        for name, entry in entries.items():
            for path in (path for file in entry.files.values() for path in file.own_paths if is_away(path)):
                report = places.fetched(call, kind, name)
                settings = downloads.settings(call, kind, name, entry)
                what = f"paths.{name}" if name in call.study.paths else f"backbone {name}"
                yield what, path, [(report, "fetch", settings, checkpoints.DOWNLOAD)]


def _of_upstream_folders(call: Call) -> Iterator[tuple[str, str, list[Made]]]:
    """Yield each folder of upstream images that is gone, after what it is called, and what jobs make that read it, or
    that make what these read: networks, and what the gate says of them."""
    for name, images in call.upstream_folders.items():
        if is_away(images["folder"]):
            used = [each.name for each in call.study.backbones if each.checkpoint == name]
            backbones = [backbone for backbone in used if backbone not in left_out(call)["backbone"]]
            yield f"upstream {name}", images["folder"], [made for one in backbones for made in _made(call, name, one)]


def _made(call: Call, network: str, backbone: str) -> Iterator[Made]:
    for start in upstream.start(call, network):
        checkpoint = call.study.trained_here(network).checkpoint or ""
        yield start, "import_checkpoint", checkpoints.import_checkpoint(call, checkpoint), checkpoints.IMPORTED
    for product, settings in upstream.products(call, backbone).items():
        yield product, "sparsify", settings, upstream.REWINDING if "until" in settings else upstream.TRAINING
    for file in layout.NETWORK_FILES:
        path = f"{call.path(layout.BACKBONE, backbone=backbone)}/{file}"
        yield path, "compress", checkpoints.compress(call, backbone), checkpoints.COMPRESSED
    verification = call.path(layout.VERIFICATION, backbone=backbone)
    yield verification, "verify_trained", checkpoints.verify_trained(call), checkpoints.VERIFIED_TRAINED
