import json

import pandas as pd

from hiddencost import figures
from hiddencost.logs import log_to

log_to(snakemake.log[0])
figures.draw(
    snakemake.wildcards.figure,
    pd.read_parquet(snakemake.input.runs),
    pd.read_parquet(snakemake.input.bins),
    json.loads(snakemake.params.settings),
    list(snakemake.output),
)
