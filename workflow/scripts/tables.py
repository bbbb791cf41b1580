from hiddencost.logs import log_to
from hiddencost.results import typeset

log_to(snakemake.log[0])
typeset.write(snakemake.input[0], list(snakemake.output))
