"""Inputs and settings of the rules in upstream.smk: networks that the study trains itself."""

from functools import cache

from hiddencost.jobs import cost, layout
from hiddencost.jobs.call import Call
from hiddencost.jobs.grid import left_out
from hiddencost.study.recipes import UpstreamRecipe
from hiddencost.study.upstream import as_level, label, lottery_levels

RECIPE = tuple(f"recipe.{name}" for name in UpstreamRecipe.model_fields)
TRAINING = ("checkpoint", "architecture", "start", "data", "image_size", "seed", "sparsify", *RECIPE)


@cache
def sparsifiers(call: Call) -> dict[str, dict | None]:
    """Return the settings of each sparsifier of the study by what its folder is called; None of dense training."""
    each = (backbone.training()[0] for backbone in call.study.backbones)
    return {label(settings): settings for settings in each} | {"dense": None}


def trained_folder(call: Call, checkpoint: str, sparsify: dict | None, seed: int | str) -> str:
    """Return the folder of a network that the study trains; sparsify: the settings of its sparsifier, or None."""
    level = f"{as_level(sparsify['sparsity']) if sparsify else 0:g}"
    wildcards = {"sparsifier": label(sparsify), "sparsity": level, "upstream_seed": seed}
    return call.path(layout.TRAINED, upstream=checkpoint, **wildcards)


def trained_network(call: Call, checkpoint: str, sparsify: dict | None, seed: int | str) -> list[str]:
    """Return the files of a network that the study trains: see `trained_folder`."""
    return [f"{trained_folder(call, checkpoint, sparsify, seed)}/{file}" for file in layout.NETWORK_FILES]


def upstream_images(call: Call, upstream: str) -> list[str]:
    """Return the files of the images that a network is trained on: none that Snakemake watches in a user's folder."""
    trained = call.study.trained(upstream)
    return layout.prepared(trained.dataset, trained.image_size) if trained.dataset else []


def images_to_verify(call: Call, backbone: str) -> list[str]:
    """Return the files of the images that a backbone was trained on upstream."""
    return upstream_images(call, call.study.backbone(backbone).checkpoint)


def start(call: Call, upstream: str) -> list[str]:
    """Return the files of the published weights that a training starts from."""
    checkpoint = call.study.trained(upstream).checkpoint
    return layout.imported(checkpoint) if checkpoint else []


def sparsify_settings(call: Call, sparsifier: str, sparsity: str) -> dict | None:
    """Return the settings of a sparsifier, by what its folder is called and the sparsity; None of dense training."""
    settings = sparsifiers(call)[sparsifier]
    return settings and settings | {"sparsity": float(sparsity)}


def _round(call: Call, sparsifier: str, sparsity: str) -> dict | None:
    """Return the settings of a round of lottery tickets, None of any other training."""
    settings = sparsify_settings(call, sparsifier, sparsity)
    return settings if settings and settings["algorithm"] == "lth" else None


def ticket(call: Call, upstream: str, sparsifier: str, sparsity: str, upstream_seed: str) -> list[str]:
    """Return the network whose weights a lottery ticket is drawn from: of the round before, in the first the dense
    one."""
    if not (settings := _round(call, sparsifier, sparsity)):
        return []
    *earlier, _ = levels_of(settings)
    before = settings | {"sparsity": earlier[-1]} if earlier else None
    return trained_network(call, upstream, before, upstream_seed)


def levels_of(sparsify: dict) -> list[float]:
    """Return the sparsity after each round of lottery tickets."""
    return lottery_levels(sparsify["sparsity"], sparsify["share"])


def rewind_point(call: Call, upstream: str, sparsifier: str, sparsity: str, upstream_seed: str) -> list[str]:
    """Return the state that a lottery ticket is rewound to."""
    if not (settings := _round(call, sparsifier, sparsity)):
        return []
    wildcards = {"upstream": upstream, "upstream_seed": upstream_seed}
    return [call.path(layout.REWIND, rewind_epoch=settings["rewind_epoch"], **wildcards)]


def _training(call: Call, upstream: str, seed: str) -> dict:
    """Return the settings of a training, for `hiddencost.upstream.training`."""
    trained = call.study.trained(upstream)
    arrays = trained.dataset and layout.PREPARED.format(dataset=trained.dataset, size=trained.image_size)
    return {
        "checkpoint": trained.name,
        "architecture": trained.architecture,
        "start": layout.IMPORTED.format(checkpoint=trained.checkpoint) if trained.checkpoint else None,
        # as `hiddencost.upstream.data.load` takes it
        "data": {"arrays": arrays} if arrays else call.upstream_folders[upstream],
        "image_size": trained.image_size,
        "recipe": trained.recipe.model_dump(),
        "seed": int(seed),
    }


def sparsify(call: Call, upstream: str, sparsifier: str, sparsity: str, upstream_seed: str) -> dict:
    """Return the settings of a training to the end."""
    return _training(call, upstream, upstream_seed) | {"sparsify": sparsify_settings(call, sparsifier, sparsity)}


def rewind(call: Call, upstream: str, rewind_epoch: str, upstream_seed: str) -> dict:
    """Return the settings of the dense training up to an epoch."""
    return _training(call, upstream, upstream_seed) | {"sparsify": None, "until": int(rewind_epoch)}


@cache
def arithmetic(call: Call, checkpoint: str) -> tuple[float, int]:
    """Return the multiply-adds of an image (in billions) and the parameters of a network that the study trains."""
    from hiddencost.upstream import check  # PyTorch and timm, which take seconds

    trained = call.study.trained(checkpoint)
    return check.arithmetic(call.checkpoints[checkpoint]["architecture"], trained.image_size, trained.recipe)


def gflop(call: Call, checkpoint: str) -> float:
    """Return the GFLOP of a training."""
    trained = call.study.trained(checkpoint)
    counts = trained.dataset and call.datasets[trained.dataset]["counts"]
    images = counts["train"] if counts else cost.IMAGENET
    return cost.upstream_gflop(trained.recipe.epochs, images, arithmetic(call, checkpoint)[0])


def trainings(call: Call) -> dict[str, float]:
    """Return the networks that the study trains and has not left out, those of the rounds of lottery tickets too: the
    folder of each, with the GFLOP of its training."""
    folders = {}
    for backbone in call.study.backbones:
        trained = call.study.trained(backbone.checkpoint)
        if not trained or backbone.name in left_out(call)["backbone"]:
            continue
        settings, seed = backbone.training()
        each = [settings]
        if settings and settings["algorithm"] == "lth":
            each = [None, *(settings | {"sparsity": level} for level in levels_of(settings))]
        for one in each:
            folders[trained_folder(call, trained.name, one, seed)] = gflop(call, trained.name)
    return folders
