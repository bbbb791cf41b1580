from pathlib import Path
from pkgutil import resolve_name

from hiddencost.jobs import values
from hiddencost.logs import log_to
from hiddencost.machine import computing

log_to(snakemake.log[0])
settings = values.read(snakemake.params)
with computing(snakemake.config["jobs_per_gpu"], snakemake.threads) as device:
    from hiddencost.runs.pairs import PairInputs

    inputs = PairInputs.of(snakemake.input, snakemake.wildcards.dataset)
    resolve_name(settings["function"])(inputs, Path(snakemake.output[0]), device)
