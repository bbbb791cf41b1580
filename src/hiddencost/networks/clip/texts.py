"""The texts that are a CLIP's source classes, and their embeddings."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from hiddencost.files import atomic, canonical
from hiddencost.networks.clip.model import OpenClip, TextClassifier, scale, text_classifier, vocabulary_of
from hiddencost.networks.clip.words import class_words

log = logging.getLogger(__name__)

# what the published code puts before CLIP's own 80 (ILM-VP, tools/clip/templates.py)
DEFAULT_TEMPLATE = "This is a photo of a {}."
BATCH = {"cpu": 64, "cuda": 512}  # texts at a time


@torch.no_grad()
def embed(
    network: OpenClip, texts: Sequence[str], name: str, progress: Callable[[int], object] = lambda count: None
) -> Tensor:
    """Embed texts by a CLIP, on its own device.

    Args:
        network: both towers.
        texts: as words.
        name: of its configuration, which has the tokenizer.
        progress: called with the number of texts of each batch.

    Returns:
        float32 [texts, D], of unit length, on the CPU.
    """
    import open_clip

    device = network.logit_scale.device
    tokens, embeddings = open_clip.get_tokenizer(vocabulary_of(name))(list(texts)), []
    for batch in tokens.split(BATCH[device.type]):
        embeddings.append(functional.normalize(network.encode_text(batch.to(device)).float(), dim=1).cpu())
        progress(len(batch))
    return torch.cat(embeddings)


def classifier_of_texts(network: OpenClip, texts: Sequence[str], name: str) -> TextClassifier:
    """Return the classifier of a CLIP over texts, as words; see `embed` for the arguments."""
    return text_classifier(network, embed(network, texts, name), scale(network))


def expand_templates(templates: list[str] | str) -> list[str]:
    """Return the templates that a study states (`recipes.ClipProtocol`): "published" is DEFAULT_TEMPLATE and CLIP's
    80 for ImageNet."""
    if templates != "published":
        return list(templates)
    import open_clip

    return [DEFAULT_TEMPLATE, *(template("{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES)]


def write_texts(
    network: nn.Module,
    name: str,
    templates: list[str],
    classes: Sequence[str],
    path: str | Path,
) -> None:
    """Write the embeddings of each template with each class's name as words, for `read_texts`.

    Args:
        network: both towers, on the device that embeds.
        name: of its configuration.
        templates: with {} for a class.
        classes: their names, as the dataset has them.
        path: of the safetensors file to write. The texts themselves, template by template, are in its metadata, as
            JSON under "texts".
    """
    named = [class_words(name) for name in classes]
    texts = [template.format(words) for template in templates for words in named]
    with tqdm(total=len(texts), unit=" texts", mininterval=10) as bar, logging_redirect_tqdm():
        embeddings = embed(network, texts, name, bar.update).reshape(len(templates), len(classes), -1)
    tensors = {"embeddings": embeddings.contiguous(), "scale": torch.tensor(scale(network))}
    with atomic(path) as temporary:
        save_file(tensors, temporary, metadata={"texts": canonical(texts)})
    log.info("%s: %d templates with %d classes", path, len(templates), len(classes))


def read_texts(path: str | Path) -> tuple[Tensor, float]:
    """Read a file of `write_texts`.

    Returns:
        The embeddings, float32 [templates, classes, D], of unit length, and what CLIP multiplies cosines by.
    """
    with safe_open(path, "pt") as stored:
        return stored.get_tensor("embeddings"), stored.get_tensor("scale").item()


def zero_shot_head(embeddings: Tensor, scale: float) -> Tensor:
    """Return the weights, float32 [classes, D], of CLIP's zero-shot classifier over images' unit embeddings.

    Source: Radford et al., section 3.1.4, prompt ensembling: the mean of each class's texts, at unit length.

    Args:
        embeddings: of the texts, float32 [templates, classes, D], of unit length.
        scale: what cosines are multiplied by.
    """
    return scale * functional.normalize(embeddings.mean(0), dim=1)
