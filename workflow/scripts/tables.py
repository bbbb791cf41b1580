from hiddencost import typeset
from hiddencost.logs import log_to

log_to(snakemake.log[0])
typeset.write(snakemake.input[0], list(snakemake.output))
