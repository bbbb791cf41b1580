import json
import sys

import pandas as pd

from hiddencost.files import atomic
from hiddencost.logs import log_to
from hiddencost.tables import conclude

log_to(snakemake.log[0])
text, complete = conclude(pd.read_parquet(snakemake.input[0]), json.loads(snakemake.params.settings)["report"])
if not complete:
    sys.exit(text)
with atomic(snakemake.output[0]) as temporary:
    temporary.write_text(text)
