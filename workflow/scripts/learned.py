from hiddencost.jobs import values
from hiddencost.logs import log_to
from hiddencost.results import learned

log_to(snakemake.log[0])
learned.write(snakemake.input.runs, values.read(snakemake.params), dict(snakemake.output.items()))
