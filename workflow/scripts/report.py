import json
from pathlib import Path

from hiddencost import report
from hiddencost.logs import log_to

log_to(snakemake.log[0])
root = Path(snakemake.scriptdir).resolve().parents[1]
report.write(Path(snakemake.output[0]), dict(snakemake.input.items()), json.loads(snakemake.params.settings), root)
