"""What a study can ask of its networks and finished runs beyond their accuracy, by name. Nothing is trained for any
of it.

What computes each is in `results.analyses`, as it needs PyTorch and pandas, and the Snakefile reads this module.
"""

from typing import Annotated

from pydantic import AfterValidator, Field

from hiddencost.datasets.corruptions import CORRUPTIONS, SEVERITIES
from hiddencost.messages import Record, one_of, refuse_duplicates

# and what each is, for the schema of a study
ANALYSES = {
    "shift": "accuracy and calibration on corrupted test images, with the prompts and probes that runs have learned: "
    "whether the cost of compression grows (see the key shift)",
    "latency": "how long each network takes for an image, on the device of its job, and the bytes of its weights",
    "why": "what changes in a compressed network, measured on test images, and how that goes with what it costs",
    "split": "how much of the cost is the network's, the prompt's and the mapping's: the test accuracy of each "
    "network under the other's prompt and mapping",
}


class Shift(Record):
    """Which corrupted test images the analysis `shift` shows."""

    corruptions: Annotated[
        list[Annotated[str, one_of(CORRUPTIONS)]], Field(min_length=1), AfterValidator(refuse_duplicates)
    ] = Field(list(CORRUPTIONS), description="of Hendrycks and Dietterich's (CIFAR-10-C, ImageNet-C)")
    severities: Annotated[
        list[Annotated[int, Field(ge=1, le=len(SEVERITIES), strict=True)]],
        Field(min_length=1),
        AfterValidator(refuse_duplicates),
        AfterValidator(sorted),
    ] = Field([1, 3, 5], description="1 to 5, as published")
