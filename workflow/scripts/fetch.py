import json

from hiddencost.fetch import fetch
from hiddencost.logs import log_to

log_to(snakemake.log[0])
fetch(json.loads(snakemake.params.settings), snakemake.output[0])
