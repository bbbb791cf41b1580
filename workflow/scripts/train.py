import json

import torch

from hiddencost.logs import log_to
from hiddencost.pack import PackInputs
from hiddencost.prompting import train_pack

log_to(snakemake.log[0])
torch.set_num_threads(snakemake.threads)
train_pack(
    PackInputs.of(snakemake.input),
    json.loads(snakemake.params.settings),
    "resources/plans",
    snakemake.output[0],
    torch.device("cuda" if torch.cuda.is_available() else "cpu"),
)
