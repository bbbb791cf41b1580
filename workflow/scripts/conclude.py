import sys

from hiddencost.files import atomic
from hiddencost.jobs import values
from hiddencost.logs import log_to
from hiddencost.results.tables import conclude, read
from hiddencost.results.verdicts import count

log_to(snakemake.log[0])
runs, verdicts = read(snakemake.input.runs), count(read(snakemake.input.claims)["verdict"])
text, complete = conclude(runs, verdicts, values.read(snakemake.params)["report"])
if not complete:
    sys.exit(text)
with atomic(snakemake.output[0]) as temporary:
    temporary.write_text(text)
