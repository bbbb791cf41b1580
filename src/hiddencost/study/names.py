"""Names that a study gives: to itself, and to its networks, datasets and files."""

import re
from typing import Annotated

from pydantic import Field
from pydantic.config import JsonDict

from hiddencost.messages import InWords

NAME, NAME_LENGTH = r"^[a-z0-9][a-z0-9._-]*$", 64
SMALL = "small letters, digits, '.', '_' and '-', a letter or a digit first"


def _small(text: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", text.casefold()).strip("-._")


Name = Annotated[str, Field(max_length=NAME_LENGTH), InWords(NAME, SMALL, _small)]
TextEncoder = Annotated[
    Name,
    Field(description="of sem: the CLIP that reads the names of classes, of the catalog, or openclip-NAME.TAG"),
]
# of what figures show, a method such as blm+ too
ShownName = Annotated[str, Field(max_length=NAME_LENGTH), InWords(r"^[a-z0-9][a-z0-9._+-]*$", f"{SMALL}, or '+'")]
CLOSED: JsonDict = {"additionalProperties": False}  # for editors: of a mapping whose keys are names, no other keys
