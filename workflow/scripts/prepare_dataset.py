from pathlib import Path

from hiddencost.catalog.entries import DatasetLayout
from hiddencost.datasets.prepare import prepare
from hiddencost.jobs import values
from hiddencost.logs import log_to

log_to(snakemake.log[0])
settings = values.read(snakemake.params)
prepare(
    snakemake.wildcards.dataset,
    DatasetLayout(**{name: settings[name] for name in DatasetLayout.model_fields}),
    snakemake.input[0] if snakemake.input else None,  # the user's own data are not fetched
    snakemake.wildcards.size,
    Path(snakemake.output[0]).parent,
)
