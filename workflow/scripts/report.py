import json
from pathlib import Path

from hiddencost.logs import log_to
from hiddencost.report import page

log_to(snakemake.log[0])
root = Path(snakemake.scriptdir).resolve().parents[1]
page.write(Path(snakemake.output[0]), dict(snakemake.input.items()), json.loads(snakemake.params.settings), root)
