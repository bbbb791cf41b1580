from hiddencost.jobs import values
from hiddencost.logs import log_to
from hiddencost.results import verdicts

log_to(snakemake.log[0])
settings = values.read(snakemake.params)
claims = dict(settings["claims"])
verdicts.write(snakemake.input[0], claims, snakemake.output[0], settings["paper"], settings["own"], settings["made"])
