"""The recipes of prompting runs, by the shape of their prompt (`prompting.prompts.PROMPTS`)."""

from hiddencost.study.recipes import PromptingProtocol, RunClipProtocol, RunProtocol

RUN_PROTOCOLS: dict[str, type[PromptingProtocol]] = {kind.prompt: kind for kind in (RunProtocol, RunClipProtocol)}
