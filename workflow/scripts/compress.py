from pathlib import Path

from hiddencost.compression.make import compress
from hiddencost.jobs import values
from hiddencost.logs import log_to

log_to(snakemake.log[0])
settings = values.read(snakemake.params)
source, folder = (Path(files[0]).parent for files in (snakemake.input.network, snakemake.output))
images = Path(snakemake.input.images[0]).parent if snakemake.input.images else None
compress(source, folder, settings["compression"], settings["control"], images)
