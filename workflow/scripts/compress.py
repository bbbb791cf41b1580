from pathlib import Path

from hiddencost.compression.make import compress
from hiddencost.jobs import values
from hiddencost.logs import log_to

log_to(snakemake.log[0])
settings = values.read(snakemake.params)
source, folder = (Path(files[0]).parent for files in (snakemake.input, snakemake.output))
compress(source, folder, settings["compression"], settings["control"])
