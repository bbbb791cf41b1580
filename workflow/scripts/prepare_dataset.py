from pathlib import Path

from hiddencost.datasets.prepare import prepare
from hiddencost.jobs import values
from hiddencost.logs import log_to

log_to(snakemake.log[0])
prepare(
    snakemake.wildcards.dataset,
    values.read(snakemake.params),
    snakemake.input[0] if snakemake.input else None,  # the user's own data are not fetched
    snakemake.wildcards.size,
    Path(snakemake.output[0]).parent,
)
