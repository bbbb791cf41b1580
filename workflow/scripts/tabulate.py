from pkgutil import resolve_name

from hiddencost.jobs import values
from hiddencost.logs import log_to
from hiddencost.results.analyses import ANALYSES

log_to(snakemake.log[0])
write = resolve_name(ANALYSES[values.read(snakemake.params)["analysis"]].tabulated_by)
write(list(snakemake.input.evaluated), snakemake.input.runs, dict(snakemake.output.items()))
