from hiddencost.jobs import values
from hiddencost.logs import log_to
from hiddencost.results import verdicts

log_to(snakemake.log[0])
verdicts.write(snakemake.input[0], dict(values.read(snakemake.params)["claims"]), snakemake.output[0])
