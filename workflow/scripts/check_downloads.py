import sys

from hiddencost.files import read_json
from hiddencost.logs import log_to

log_to(snakemake.log[0])
failed = [f"{path}: {why}" for path in snakemake.input if (why := read_json(path)["failed"])]
if failed:
    sys.exit("\n".join(failed))
print(f"{len(snakemake.input)} downloads are there")
