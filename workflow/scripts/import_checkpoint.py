import json
from pathlib import Path

from hiddencost.checkpoint import import_checkpoint
from hiddencost.logs import log_to

log_to(snakemake.log[0])
import_checkpoint(
    snakemake.wildcards.checkpoint,
    json.loads(snakemake.params.settings),
    snakemake.input[0],
    Path(snakemake.output[0]).parent,
)
