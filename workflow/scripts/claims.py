from hiddencost.jobs import values
from hiddencost.logs import log_to
from hiddencost.results import verdicts

log_to(snakemake.log[0])
settings = values.read(snakemake.params)
claims = dict(settings["claims"])
analysed = {name: table for name, table in snakemake.input.items() if name != "runs"}
of_networks = settings["paper"], settings["own"], settings["made"]
verdicts.write(snakemake.input.runs, claims, snakemake.output[0], *of_networks, analysed)
