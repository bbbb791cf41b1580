import json

from hiddencost.logs import log_to
from hiddencost.results import learned

log_to(snakemake.log[0])
learned.write(snakemake.input.runs, json.loads(snakemake.params.settings), dict(snakemake.output.items()))
