"""Inputs and settings of the rules in upstream.smk: networks that the study trains itself."""

from functools import cache

from hiddencost.digest import code_digest
from hiddencost.jobs import cost, layout, places
from hiddencost.jobs.call import Call
from hiddencost.jobs.grid import left_out
from hiddencost.networks.own import own_files
from hiddencost.study.sparsifiers import SPARSIFIERS, Settings, folder_name, rounded_sparsity
from hiddencost.study.upstream_recipe import UpstreamRecipe

RECIPE = tuple(f"recipe.{name}" for name in UpstreamRecipe.model_fields)
# params of rules
TRAINING = ("checkpoint", "architecture", "network_code", "start", "data", "image_size", "seed", "sparsify", *RECIPE)
REWINDING = (*TRAINING, "until")


@cache
def sparsifiers(call: Call) -> dict[str, dict | None]:
    """Return the settings of each sparsifier of the study by what its folder is called; None of dense training."""
    each = (backbone.training()[0] for backbone in call.study.backbones)
    return {folder_name(settings): settings for settings in each} | {"dense": None}


def trained_folder(call: Call, checkpoint: str, sparsify: Settings | None, seed: int | str) -> str:
    """Return the folder of a network that the study trains; sparsify: the settings of its sparsifier, or None."""
    level = f"{rounded_sparsity(sparsify['sparsity']) if sparsify else 0:g}"
    wildcards = {"sparsifier": folder_name(sparsify), "sparsity": level, "upstream_seed": seed}
    return call.path(layout.TRAINED, upstream=checkpoint, **wildcards)


def trained_network(call: Call, checkpoint: str, sparsify: Settings | None, seed: int | str) -> list[str]:
    """Return the files of a network that the study trains: see `trained_folder`."""
    return [f"{trained_folder(call, checkpoint, sparsify, seed)}/{file}" for file in layout.NETWORK_FILES]


def upstream_images(call: Call, upstream: str) -> list[str]:
    """Return the files of the images that a network is trained on: none that Snakemake watches in a user's folder."""
    trained = call.study.trained_here(upstream)
    return places.prepared(call, trained.dataset, trained.image_size) if trained.dataset else []


def images_to_verify(call: Call, backbone: str) -> list[str]:
    """Return the files of the images that a backbone was trained on upstream."""
    return upstream_images(call, call.study.backbone(backbone).checkpoint)


def start(call: Call, upstream: str) -> list[str]:
    """Return the files of the published weights that a training starts from."""
    checkpoint = call.study.trained_here(upstream).checkpoint
    return places.imported(call, checkpoint) if checkpoint else []


def sparsify_settings(call: Call, sparsifier: str, sparsity: str) -> dict | None:
    """Return the settings of a sparsifier, by what its folder is called and the sparsity; None of dense training."""
    settings = sparsifiers(call)[sparsifier]
    return settings and settings | {"sparsity": float(sparsity)}


def _trainings(settings: Settings | None) -> list[Settings | None]:
    """Return the settings of all trainings that one stands on, in order, itself the last; None of a dense one."""
    return SPARSIFIERS[settings["algorithm"]].trainings(settings) if settings else [None]


def ticket(call: Call, upstream: str, sparsifier: str, sparsity: str, upstream_seed: str) -> list[str]:
    """Return the network whose weights a lottery ticket is drawn from: of the round before, in the first the dense
    one."""
    *earlier, _ = _trainings(sparsify_settings(call, sparsifier, sparsity))
    return trained_network(call, upstream, earlier[-1], upstream_seed) if earlier else []


def rewind_point(call: Call, upstream: str, sparsifier: str, sparsity: str, upstream_seed: str) -> list[str]:
    """Return the state that a lottery ticket is rewound to."""
    settings = sparsify_settings(call, sparsifier, sparsity)
    epoch = settings and SPARSIFIERS[settings["algorithm"]].rewind_epoch(settings)
    if epoch is None:
        return []
    return [call.path(layout.REWIND, rewind_epoch=epoch, upstream=upstream, upstream_seed=upstream_seed)]


def network_code(architecture: str) -> dict[str, str]:
    """Return the digest of the code that makes a network which has a module of its own; nothing of others."""
    files = own_files(architecture)
    return {"network_code": code_digest(*files)} if files else {}


def _training(call: Call, upstream: str, seed: str) -> dict:
    """Return the settings of a training, for `hiddencost.upstream.training`."""
    trained = call.study.trained_here(upstream)
    arrays = trained.dataset and places.prepared_folder(call, trained.dataset, trained.image_size)
    architecture = call.checkpoints[upstream].architecture
    return network_code(architecture) | {
        "checkpoint": trained.name,
        "architecture": architecture,
        "start": places.imported_folder(call, trained.checkpoint) if trained.checkpoint else None,
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


def products(call: Call, backbone: str) -> dict[str, dict]:
    """Return the settings of all trainings that a backbone stands on, by the files that they make."""
    name = call.study.backbone(backbone).checkpoint
    settings, seed = call.study.backbone(backbone).training()
    made = {}
    for needed in _trainings(settings):
        level = f"{rounded_sparsity(needed['sparsity']) if needed else 0:g}"
        wildcards = name, folder_name(needed), level, str(seed)
        for state in rewind_point(call, *wildcards):
            epoch = SPARSIFIERS[needed["algorithm"]].rewind_epoch(needed) if needed else 0
            made[state] = rewind(call, name, str(epoch), str(seed))
        made |= dict.fromkeys(trained_network(call, name, needed, seed), sparsify(call, *wildcards))
    return made


@cache
def arithmetic(call: Call, checkpoint: str) -> tuple[float, int]:
    """Return the multiply-adds of an image (in billions) and the parameters of a network that the study trains."""
    from hiddencost.upstream import check  # PyTorch and timm, which take seconds

    trained = call.study.trained_here(checkpoint)
    return check.arithmetic(call.checkpoints[checkpoint].architecture, trained.image_size, trained.recipe)


def gflop(call: Call, checkpoint: str) -> float:
    """Return the GFLOP of a training."""
    trained = call.study.trained_here(checkpoint)
    counts = call.datasets[trained.dataset].counts if trained.dataset else None
    images = counts.train if counts else call.upstream_counts[checkpoint]
    return cost.upstream_gflop(trained.recipe.epochs, images, arithmetic(call, checkpoint)[0])


def trainings(call: Call) -> dict[str, tuple[str, float]]:
    """Return the networks that the study trains and has not left out, those of the rounds of lottery tickets too: the
    folder of each, with its name under `upstream` and the GFLOP of its training."""
    folders = {}
    for backbone in call.study.backbones:
        trained = call.study.upstream_network(backbone.checkpoint)
        if not trained or backbone.name in left_out(call)["backbone"]:
            continue
        settings, seed = backbone.training()
        for needed in _trainings(settings):
            folders[trained_folder(call, trained.name, needed, seed)] = trained.name, gflop(call, trained.name)
    return folders
