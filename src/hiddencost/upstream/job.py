"""What an upstream training is asked for."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from hiddencost.study.upstream_recipe import UpstreamRecipe


class UpstreamJob(BaseModel):
    """The settings of a training: to the end, or up to the epoch that lottery tickets are rewound to.

    Attributes:
        checkpoint: its name in the study.
        architecture: of the network, or of the checkpoint that it starts from.
        start: the folder of an imported checkpoint, or None.
        data: see `data.load`.
        image_size: side of the images that it sees, in pixels.
        recipe: of the training.
        sparsify: all settings of a sparsifier, None of a dense training.
        seed: of its weights, batches and masks.
        unfinished: the file that keeps the state at each epoch's end, from which an interrupted training goes on.
        output: the backbone's folder, or the file of the state to rewind to.
        ticket: of a lottery ticket the folder of the network that the round prunes.
        rewind: of a lottery ticket the file of the state that it is rewound to.
        until: epochs to train, where not to the end.
    """

    model_config = ConfigDict(frozen=True)

    checkpoint: str
    architecture: str | None
    start: str | None
    data: dict[str, Any]
    image_size: int
    recipe: UpstreamRecipe
    sparsify: dict[str, Any] | None
    seed: int
    unfinished: str
    output: str
    ticket: str | None = None
    rewind: str | None = None
    until: int | None = None
