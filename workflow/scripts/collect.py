import json

from hiddencost import tables
from hiddencost.logs import log_to

log_to(snakemake.log[0])
runs = tables.collect(list(snakemake.input), json.loads(snakemake.params.settings))
tables.write(runs[tables.RUN_COLUMNS], snakemake.output.runs_csv)
tables.write(runs[tables.RUN_COLUMNS], snakemake.output.runs)
tables.write(tables.summarise(runs), snakemake.output.summary)
tables.write(tables.bins(runs), snakemake.output.bins)
