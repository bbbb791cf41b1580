import json
from pathlib import Path

from hiddencost.compression.make import compress
from hiddencost.logs import log_to

log_to(snakemake.log[0])
compress(Path(snakemake.input[0]).parent, Path(snakemake.output[0]).parent, **json.loads(snakemake.params.settings))
