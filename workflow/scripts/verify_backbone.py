import json
from pathlib import Path

import torch

from hiddencost.files import write_json
from hiddencost.logs import log_to
from hiddencost.verify import verify

log_to(snakemake.log[0])
torch.set_num_threads(snakemake.threads)
settings = json.loads(snakemake.params.settings)
folder = Path(snakemake.input.backbone[0]).parent
write_json(snakemake.output[0], verify(folder, snakemake.input.photos, settings["photos"], settings))
