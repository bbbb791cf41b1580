"""Readers of published checkpoint formats, a module each.

READERS[format](files) takes the paths of a checkpoint's files by their key in the catalog (`weights`, for lottery
tickets also `mask`) and returns what they hold under the names of the catalog's architecture. A reader raises
ValueError, in one line with file and key, for anything it does not know; which keys the architecture wants is
checked afterwards (backbone.load_strictly).
"""

from collections.abc import Callable
from pathlib import Path

from hiddencost.networks.formats import (
    efficientnet_lite,
    ist,
    keras,
    lth,
    open_clip,
    sparseml,
    timm,
    torchvision,
    upop,
)
from hiddencost.networks.formats.reading import Imported

READERS: dict[str, Callable[[dict[str, Path]], Imported]] = {
    "torchvision": torchvision.read,
    "timm": timm.read,
    "ist": ist.read,
    "rigl": ist.read,  # RigL's networks in IST's layout, with the module names of `resnet50_rigl`
    "sparseml": sparseml.read,
    "lth": lth.read,
    "keras": keras.read,
    "efficientnet_lite": efficientnet_lite.read,
    "open_clip": open_clip.read,
    "upop": upop.read,
}
