from pathlib import Path

import torch

from hiddencost.features import extract_features
from hiddencost.logs import log_to

log_to(snakemake.log[0])
torch.set_num_threads(snakemake.threads)
extract_features(
    Path(snakemake.input.backbone[0]).parent,
    snakemake.input.verification,
    Path(snakemake.input.dataset[0]).parent,
    snakemake.output[0],
    torch.device("cuda" if torch.cuda.is_available() else "cpu"),
)
