from hiddencost.logs import log_to
from hiddencost.results import matched

log_to(snakemake.log[0])
matched.write(snakemake.input.runs, snakemake.input.upstream, snakemake.output[0])
