from pathlib import Path

from hiddencost.jobs import values
from hiddencost.logs import log_to
from hiddencost.networks.checkpoint import import_checkpoint

log_to(snakemake.log[0])
import_checkpoint(
    snakemake.wildcards.checkpoint,
    values.read(snakemake.params),
    snakemake.input[0],
    Path(snakemake.output[0]).parent,
)
