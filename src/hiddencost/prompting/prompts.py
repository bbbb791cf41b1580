"""The shapes of visual prompts, by name, a module each.

A shape is imported when it is used, and no other module imports it: a run stands on its own shape alone (`digest`).
A new one is a module here and its line in PROMPTS; its settings are a recipe in `study.protocols`.
"""

from __future__ import annotations

import inspect
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from hiddencost.digest import code_digest, module_file
from hiddencost.files import canonical, sha256_text
from hiddencost.study.protocols import RUN_PROTOCOLS

if TYPE_CHECKING:  # the Snakefile reads this module, and does without the seconds that PyTorch takes
    from hiddencost.prompting.prompt import Prompt

# as "module:class"
PROMPTS: dict[str, str] = {
    "border": "hiddencost.prompting.border:BorderPrompt",
    "additive": "hiddencost.prompting.additive:AdditivePrompt",
    "resize": "hiddencost.prompting.resize:ResizePrompt",
    "masks": "hiddencost.prompting.masks:MaskPrompt",
}


def shape_of(name: str) -> type[Prompt]:
    """Return the class of a shape, by its name."""
    return resolve_name(PROMPTS[name])


def digest(name: str) -> str:
    """Return the SHA-256 over what a run of a shape stands on beside the code of its job.

    That is the code of the shape and of its recipe, and of all that they import.
    """
    module, _, shape = PROMPTS[name].partition(":")
    recipe = RUN_PROTOCOLS[name]
    code = code_digest(module_file(module), str(inspect.getsourcefile(recipe)))
    return sha256_text(canonical([shape, recipe.__name__, code]))
