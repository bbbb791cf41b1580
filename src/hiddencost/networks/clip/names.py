"""How alike the names of classes are, by a CLIP's embeddings of them: those of a dataset, and of ImageNet-1k.

Source: AutoVP (arXiv 2310.08381) and its published code (IBM/AutoVP, auto_vp/programs.py: Semantic_mapping;
auto_vp/dataprepare.py: refine_classnames): names as they are, without a template, those of the dataset as words.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from hiddencost.files import atomic
from hiddencost.networks import backbones
from hiddencost.networks.clip.model import OpenClip, configuration_of
from hiddencost.networks.clip.texts import embed
from hiddencost.networks.clip.words import class_words
from hiddencost.networks.manifest import Manifest

log = logging.getLogger(__name__)


def imagenet_names() -> list[str]:
    """Return the names of ImageNet-1k's classes, in their order: all that WordNet has for each, as timm keeps them.

    They are those of the published code to the letter (auto_vp/imagenet1000_classname.py): "tench, Tinca tinca".
    torchvision has the first of each alone, and open_clip other names.
    """
    from timm.data import ImageNetInfo

    known = ImageNetInfo()
    return [known.label_name_to_description(label) for label in known.label_names()]


def compare_names(network: OpenClip, name: str, classes: Sequence[str]) -> Tensor:
    """Return how alike names are: the cosines of their embeddings, float32 [classes, 1000], on the CPU.

    Args:
        network: both towers of a CLIP.
        name: of its configuration.
        classes: names of target classes, as the dataset has them.
    """
    texts = [class_words(one) for one in classes], imagenet_names()
    targets, sources = (embed(network, each, name) for each in texts)
    return targets @ sources.T


def write_names(folder: str | Path | None, classes: Sequence[str], output: str | Path, left_out: str | None) -> None:
    """Write how alike the names of a dataset's classes and ImageNet-1k's are, as `similarities`.

    Args:
        folder: of an imported CLIP, which has no gate to pass: its texts alone are read.
        classes: names of the dataset's; none where it has failed.
        output: a safetensors file; where there is no CLIP, without tensors, and with why as "failed" in its metadata.
        left_out: why it has no folder.
    """
    failed, tensors = left_out if folder is None else Manifest.read(folder).failed, {}
    if folder is not None and classes and not failed:
        network, _, manifest = backbones.load(folder)
        tensors = {"similarities": compare_names(network, configuration_of(manifest.architecture), classes)}
        log.info("%s: %d names beside those of ImageNet-1k, read by %s", output, len(classes), manifest.checkpoint)
    with atomic(output) as temporary:
        save_file(tensors, temporary, metadata={"failed": failed} if failed else None)
