from functools import partial
from pathlib import Path

import torch

from hiddencost.compression.gate import verify
from hiddencost.jobs import values
from hiddencost.logs import log_to
from hiddencost.upstream.gate import masked_keys, recognised

log_to(snakemake.log[0])
torch.set_num_threads(snakemake.threads)
settings = values.read(snakemake.params)
recognise = partial(recognised, least=settings["upstream_top1"])
folder = Path(snakemake.input.backbone[0]).parent
verify(folder, settings, recognise, masked_keys).write(snakemake.output[0])
