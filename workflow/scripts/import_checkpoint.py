from pathlib import Path

from hiddencost.catalog.entries import CheckpointLayout
from hiddencost.jobs import values
from hiddencost.logs import log_to
from hiddencost.networks.checkpoint import import_checkpoint

log_to(snakemake.log[0])
settings = values.read(snakemake.params)
import_checkpoint(
    snakemake.wildcards.checkpoint,
    CheckpointLayout(**{name: settings[name] for name in CheckpointLayout.model_fields}),
    snakemake.input[0],
    Path(snakemake.output[0]).parent,
)
