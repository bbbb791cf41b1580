"""Inputs and settings of the rules in checkpoints.smk: from published files to verified backbones."""

from hiddencost.catalog.entries import UNCOMPRESSED, CheckpointLayout
from hiddencost.digest import code_digest
from hiddencost.jobs import downloads, grid, layout, places, upstream
from hiddencost.jobs.call import Call
from hiddencost.networks.formats.registry import READERS
from hiddencost.networks.own import own_files

# params of rules
DOWNLOAD = ("files", "attempt")  # of those that fetch: see `downloads.settings`
IMPORTED = (*CheckpointLayout.model_fields, "files", "reader_code")
COMPRESSED = ("compression", "control")
VERIFIED = ("sparsity_tolerance", "photos_top1", "photos")
VERIFIED_TRAINED = ("sparsity_tolerance", "upstream_top1")


def fetched_checkpoint(call: Call, checkpoint: str) -> str:
    """Return the report of a checkpoint's download."""
    return places.fetched(call, "checkpoints", checkpoint)


def fetch_checkpoint(call: Call, checkpoint: str) -> dict:
    """Return the settings of a checkpoint's download."""
    return downloads.settings(call, "checkpoints", checkpoint, call.checkpoints[checkpoint])


def fetch_photos(call: Call) -> dict:
    """Return the settings of the download of the gate's photos."""
    return downloads.settings(call, "photos", call.study.verification.photos, call.study.photos_entry())


def import_checkpoint(call: Call, checkpoint: str) -> dict:
    """Return what an imported checkpoint depends on of its entry, which also holds titles, licences and citations;
    `reader_code`: the digest of the code that reads its format and, of a network with a module of its own, makes it.
    """
    entry = call.published[checkpoint]
    reader_code = code_digest(READERS[entry.format].file, *own_files(entry.architecture))
    return entry.layout().model_dump() | {"files": downloads.checksums(call, entry), "reader_code": reader_code}


def source_network(call: Call, backbone: str) -> list[str]:
    """Return the files of the network that a backbone is made of: as imported, or as the study has trained it."""
    settings = call.study.backbone(backbone)
    if not call.study.upstream_network(settings.checkpoint):
        return places.imported(call, settings.checkpoint)
    return upstream.trained_network(call, settings.checkpoint, *settings.training())


def compress(call: Call, backbone: str) -> dict:
    """Return how a backbone is made: its `compression` and its `control`."""
    settings = call.study.backbone(backbone)
    compression = settings.compression and settings.compression.model_dump(exclude_none=True)
    return {"compression": compression, "control": settings.control}


def calibration_images(call: Call, backbone: str) -> list[str]:
    """Return the files of the images that a backbone's compression looks at; none where it looks at none."""
    calibration = call.study.calibration(call.study.backbone(backbone))
    return places.prepared(call, *calibration) if calibration else []


def verify_backbone(call: Call) -> dict:
    """Return what the gate asks of a published network, and how its photos are read."""
    photos = call.study.photos_entry().layout().model_dump()
    return call.study.verification.model_dump(include={"sparsity_tolerance", "photos_top1"}) | {"photos": photos}


def dense_network(call: Call, backbone: str) -> list[str]:
    """Return the files of the dense network that the gate holds a compressed one's answers against: the study's,
    where it is published and not left out; of other networks none."""
    one = call.study.backbone(backbone)
    name = call.study.dense_of(one)
    if name is None or name in grid.left_out(call)["backbone"] or name in trained_backbones(call) or one.control:
        return []
    both = one, call.study.backbone(name)
    compressed, dense = (call.study.declared(each, call.checkpoints[each.checkpoint]) for each in both)
    if compressed["compression"] == UNCOMPRESSED or dense["compression"] != UNCOMPRESSED or dense["control"]:
        return []
    return [call.path(f"{layout.BACKBONE}/{file}", backbone=name) for file in layout.NETWORK_FILES]


def verify_trained(call: Call) -> dict:
    """Return what the gate asks of a network that the study has trained."""
    return call.study.verification.model_dump(include={"sparsity_tolerance", "upstream_top1"})


def trained_backbones(call: Call) -> list[str]:
    """Return the names of the backbones whose checkpoint the study trains."""
    return [backbone.name for backbone in call.study.backbones if call.study.upstream_network(backbone.checkpoint)]


def published_backbones(call: Call) -> list[str]:
    """Return the names of the backbones whose checkpoint is published."""
    return [
        backbone.name for backbone in call.study.backbones if not call.study.upstream_network(backbone.checkpoint)
    ]
