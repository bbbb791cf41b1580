"""Entries of the catalog that are made from a library's own, timm's and open_clip's; and what libraries state of the
images of an architecture."""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache

from hiddencost.catalog.entries import CheckpointEntry, Preprocessing
from hiddencost.sources import Source, SourceFile


def timm_entry(name: str) -> CheckpointEntry:
    """Return the entry of a pretrained model of timm; see `catalog.checkpoint`."""
    import timm  # takes seconds, and PyTorch with it

    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError:  # it knows the architecture, not the weights
        config = None
    if config is None:
        near = [f"timm-{other}" for other in get_close_matches(name, timm.list_pretrained())]
        raise ValueError(f"timm has no pretrained model {name!r}; near it: {', '.join(near) or 'nothing'}")
    if not config.hf_hub_id or config.num_classes != 1000:
        raise ValueError(
            f"timm-{name}: expected weights on Hugging Face with the 1000 classes of ImageNet-1k, found "
            f"{config.hf_hub_id or 'none there'}, {config.num_classes} classes"
        )
    # timm's types know one name, and its models have several, too
    stem = config.first_conv if isinstance(config.first_conv, str) else config.first_conv[0]  # type: ignore[index]
    papers = config.paper_ids if isinstance(config.paper_ids, str) else ", ".join(config.paper_ids or ())
    preprocessing = {"mean": list(config.mean), "std": list(config.std), "interpolation": config.interpolation}
    source = Source(hf=config.hf_hub_id, file="model.safetensors")
    return CheckpointEntry(
        title=f"{config.architecture}, ImageNet-1k, timm's weights {config.tag}",
        architecture=f"timm/{name}",
        format="timm",
        files={"weights": SourceFile(name="model.safetensors", sources=[source])},
        preprocessing=Preprocessing.model_validate(preprocessing),
        canvas=config.input_size[-1],
        stem=stem,
        upstream_top1=None,  # timm keeps its results apart
        gmacs=None,  # counted where a study is planned
        licence=config.license or "not stated",
        citation=papers or config.origin_url or "not stated",
        read_from=f"timm.get_pretrained_cfg({name!r}), timm {timm.__version__}",
    )


def open_clip_entry(name: str) -> CheckpointEntry:
    """Return the entry of a pretrained CLIP of open_clip; see `catalog.checkpoint`."""
    import open_clip  # takes seconds, and PyTorch with it
    from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME

    known = {f"{model}.{tag}".lower(): (model, tag) for model, tag in open_clip.list_pretrained()}
    if name not in known:
        near = [f"openclip-{other}" for other in get_close_matches(name, known)]
        raise ValueError(f"open_clip has no pretrained model {name!r}; near it: {', '.join(near) or 'nothing'}")
    model, tag = known[name]
    config = open_clip.get_pretrained_cfg(model, tag)
    if config.get("quick_gelu") and not open_clip.get_model_config(model).get("quick_gelu"):
        model += "-quickgelu"  # the activation that these weights were trained with
    repository, _, file = config["hf_hub"].rpartition("/")
    file = file or HF_WEIGHTS_NAME
    names = [HF_SAFE_WEIGHTS_NAME, file] if file == HF_WEIGHTS_NAME else [file]
    sources = [Source(hf=repository, file=each) for each in names]
    return CheckpointEntry(
        title=f"{model}, open_clip's weights {tag}",
        architecture=f"clip/{model}",
        format="open_clip",
        files={"weights": SourceFile(name="open_clip_model", sources=sources)},
        preprocessing=Preprocessing(
            mean=list(config["mean"]),
            std=list(config["std"]),
            interpolation=config["interpolation"],
            resize=config["resize_mode"],
        ),
        canvas=open_clip.get_model_config(model)["vision_cfg"].get("image_size", 224),
        stem=None,
        sparsity_over="towers",
        upstream_top1=None,  # open_clip keeps its results apart
        gmacs=None,  # counted where a study is planned
        licence="not stated by open_clip; see the model's page on Hugging Face",
        citation="Cherti et al., Reproducible scaling laws for contrastive language-image learning, CVPR 2023",
        read_from=f"open_clip.get_pretrained_cfg({model!r}, {tag!r}), open_clip {open_clip.__version__}",
    )


@dataclass(frozen=True)
class Preset:
    """The images of an architecture, as its library states them.

    Attributes:
        preprocessing: None where no library states any.
        canvas: the side of its input, in pixels; None where no library states one.
    """

    preprocessing: Preprocessing | None = None
    canvas: int | None = None


@cache
def preset(architecture: str) -> Preset:
    """Return how the images of an architecture are made: by torchvision's default weights of it, or by timm's.

    architecture: see `networks.build`. Raises ValueError where timm or torchvision has none of that name, with the
    names that are near; of a name of this project alone nothing is stated.
    """
    if architecture.startswith("timm/"):
        return _timm_preset(architecture.removeprefix("timm/"))
    import torchvision  # takes seconds, and PyTorch with it

    if architecture not in torchvision.models.list_models(module=torchvision.models):
        return Preset()
    images = torchvision.models.get_model_weights(architecture).DEFAULT.transforms()
    values = {"mean": images.mean, "std": images.std, "interpolation": images.interpolation.value}
    return Preset(Preprocessing.model_validate(values), images.crop_size[0])


def _timm_preset(name: str) -> Preset:
    import timm  # takes seconds, and PyTorch with it

    if not timm.is_model(name):
        near = [f"timm/{other}" for other in get_close_matches(name, timm.list_models())]
        raise ValueError(f"timm has no model {name!r}; near it: {', '.join(near) or 'nothing'}")
    config = timm.get_pretrained_cfg(name)
    if config is None:
        return Preset()
    values = {"mean": list(config.mean), "std": list(config.std), "interpolation": config.interpolation}
    return Preset(Preprocessing.model_validate(values), config.input_size[-1])


@dataclass(frozen=True)
class Library:
    """A library whose pretrained models are checkpoints, too.

    Attributes:
        architectures: what the names of their architectures begin with.
        entry: makes the entry of a model, by the library's name of it.
    """

    architectures: str
    entry: Callable[[str], CheckpointEntry]


# by what the names of their checkpoints begin with
LIBRARIES = {"timm-": Library("timm/", timm_entry), "openclip-": Library("clip/", open_clip_entry)}
