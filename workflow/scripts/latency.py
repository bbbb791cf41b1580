from pathlib import Path

from hiddencost.jobs import values
from hiddencost.logs import log_to
from hiddencost.machine import computing

log_to(snakemake.log[0])
with computing(snakemake.config["jobs_per_gpu"], snakemake.threads) as device:
    from hiddencost.runs.latency import Measured, write

    settings, files = values.read(snakemake.params), snakemake.input
    backbone = Measured(Path(files.backbone[0]).parent, settings["canvas"])
    dense = Measured(Path(files.dense[0]).parent, settings["dense_canvas"]) if files.dense else None
    write(backbone, dense, Path(snakemake.output[0]), device)
