from pathlib import Path

from hiddencost.jobs import values
from hiddencost.logs import log_to
from hiddencost.machine import computing

log_to(snakemake.log[0])
settings = values.read(snakemake.params)
images = {size: Path(folder) for size, folder in settings["images"].items()}
with computing(snakemake.config["jobs_per_gpu"], snakemake.threads) as device:
    from hiddencost.runs.shift import ShiftInputs, write

    files = snakemake.input
    inputs = ShiftInputs(
        backbone=Path(files.backbone[0]).parent,
        images=images,
        prompted=[Path(table) for table in files.prompted],
        probed=[Path(table) for table in files.probed],
        texts=next(map(Path, files.texts), None),  # of a network that has texts
    )
    chosen, output = (settings["corruptions"], settings["severities"]), Path(snakemake.output[0])
    write(inputs, *chosen, output, "resources/plans", device, snakemake.resources.mem_mb * 2**20)
