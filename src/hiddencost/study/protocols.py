"""The recipes of prompting runs, by the shape of their prompt (`prompting.prompts.PROMPTS`)."""

from collections.abc import Mapping
from typing import Any

from hiddencost.study.masks import RunMaskProtocol
from hiddencost.study.recipes import PromptingProtocol, RunClipProtocol, RunProtocol
from hiddencost.study.resize import RunResizeProtocol

RUN_PROTOCOLS: dict[str, type[PromptingProtocol]] = {
    kind.prompt: kind for kind in (RunProtocol, RunClipProtocol, RunResizeProtocol, RunMaskProtocol)
}


def shape_of_run(recipe: Mapping[str, Any], of_family: str) -> str:
    """Return the shape of a run's prompt: that of its recipe, which states one that its study has chosen, or that of
    its family of networks."""
    return recipe.get("shape", of_family)
