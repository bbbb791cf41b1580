import json

from hiddencost import catalog
from hiddencost.fetch import fetch
from hiddencost.logs import log_to

log_to(snakemake.log[0])
kind = {"fetch_checkpoint": "checkpoints", "fetch_photos": "photos"}[snakemake.rule]
fetch(catalog.load(kind)[json.loads(snakemake.params.settings)["name"]], snakemake.output[0])
