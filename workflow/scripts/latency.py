from pathlib import Path

from hiddencost.jobs import values
from hiddencost.logs import log_to
from hiddencost.machine import computing

log_to(snakemake.log[0])
with computing(snakemake.config["jobs_per_gpu"], snakemake.threads) as device:
    from hiddencost.runs.latency import write

    canvas = values.read(snakemake.params)["canvas"]
    write(Path(snakemake.input.backbone[0]).parent, canvas, Path(snakemake.output[0]), device)
