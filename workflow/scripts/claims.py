import json

from hiddencost.logs import log_to
from hiddencost.results import verdicts

log_to(snakemake.log[0])
verdicts.write(snakemake.input[0], dict(json.loads(snakemake.params.settings)["claims"]), snakemake.output[0])
