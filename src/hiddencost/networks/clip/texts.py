"""The texts that are a CLIP's source classes, and their embeddings."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from hiddencost.files import atomic, canonical
from hiddencost.networks.clip.model import TextClassifier, image_tower, scale

# what the published code puts before CLIP's own 80 (ILM-VP, tools/clip/templates.py)
DEFAULT_TEMPLATE = "This is a photo of a {}."
TEXTS = {"cpu": 64, "cuda": 512}  # at a time


@torch.no_grad()
def embed(
    network: nn.Module, texts: Sequence[str], name: str, progress: Callable[[int], object] = lambda count: None
) -> Tensor:
    """Return the embeddings of texts, float32 [texts, D], of unit length, by a CLIP on its own device.

    name: of its configuration, which tells the tokenizer; progress is told the number of texts of each batch.
    """
    import open_clip

    device = network.logit_scale.device
    tokens, found = open_clip.get_tokenizer(name)(list(texts)), []
    for batch in tokens.split(TEXTS[device.type]):
        found.append(functional.normalize(network.encode_text(batch.to(device)).float(), dim=1).cpu())
        progress(len(batch))
    return torch.cat(found)


def classifier(network: nn.Module, texts: Sequence[str], name: str) -> TextClassifier:
    """Return the classifier of a CLIP over texts. name: of its configuration."""
    return TextClassifier(image_tower(network), embed(network, texts, name), scale(network)).eval()


def templates(told: list[str] | str) -> list[str]:
    """Return templates as a study tells them (protocol.ClipProtocol): "published" is DEFAULT_TEMPLATE and CLIP's 80
    for ImageNet."""
    if told != "published":
        return list(told)
    import open_clip

    return [DEFAULT_TEMPLATE, *(template("{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES)]


def words(name: str) -> str:
    """Return a class's name as words: in small letters, with spaces for _ and - and between words written together.

    The first is the published code's (refine_classnames of ILM-VP), the last is ours: AnnualCrop is annual crop.
    """
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower().replace("_", " ").replace("-", " ")


def write_texts(
    network: nn.Module,
    name: str,
    templates: list[str],
    classes: list[str],
    path: str | Path,
    progress: Callable[[int], object],
) -> None:
    """Write the embeddings of each template with each class's name as words, for `read_texts`.

    The texts themselves, template by template, are in the file's metadata, as JSON under "texts".
    """
    named = [words(one) for one in classes]
    texts = [template.format(one) for template in templates for one in named]
    embeddings = embed(network, texts, name, progress).reshape(len(templates), len(classes), -1)
    tensors = {"embeddings": embeddings.contiguous(), "scale": torch.tensor(scale(network))}
    with atomic(path) as temporary:
        save_file(tensors, temporary, metadata={"texts": canonical(texts)})


def read_texts(path: str | Path) -> tuple[Tensor, float]:
    """Return the embeddings of texts, float32 [templates, classes, D], of unit length, and CLIP's scale."""
    with safe_open(path, "pt") as stored:
        return stored.get_tensor("embeddings"), stored.get_tensor("scale").item()


def zero_shot_head(embeddings: Tensor, scale: float) -> Tensor:
    """Return the weights, float32 [classes, D], of CLIP's zero-shot classifier over unit embeddings: the mean of each
    class's texts, at unit length, times the scale (Radford et al., section 3.1.4, prompt ensembling)."""
    return scale * functional.normalize(embeddings.mean(0), dim=1)
