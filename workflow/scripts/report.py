from pathlib import Path

from hiddencost.jobs import values
from hiddencost.logs import log_to
from hiddencost.report import page

log_to(snakemake.log[0])
root = Path(snakemake.scriptdir).resolve().parents[1]
page.write(Path(snakemake.output[0]), dict(snakemake.input.items()), values.read(snakemake.params), root)
