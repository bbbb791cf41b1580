import json

import torch

from hiddencost.logs import log_to
from hiddencost.pack import PackInputs
from hiddencost.probe import probe_pack

log_to(snakemake.log[0])
torch.set_num_threads(snakemake.threads)
probe_pack(
    PackInputs.of(snakemake.input),
    snakemake.input.features,
    json.loads(snakemake.params.settings),
    snakemake.output[0],
)
