import json
from pathlib import Path

from hiddencost.logs import log_to
from hiddencost.prepare import prepare

log_to(snakemake.log[0])
prepare(
    snakemake.wildcards.dataset,
    json.loads(snakemake.params.settings),
    int(snakemake.wildcards.size),
    root=Path(snakemake.scriptdir).resolve().parents[1],
    folder=Path(snakemake.output[0]).parent,
)
