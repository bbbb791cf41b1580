import json

from hiddencost import learned
from hiddencost.logs import log_to

log_to(snakemake.log[0])
learned.write(snakemake.input.runs, json.loads(snakemake.params.settings), dict(snakemake.output.items()))
