from pathlib import Path

from hiddencost.logs import log_to
from hiddencost.machine import compute_device, lease

log_to(snakemake.log[0])
jobs_per_gpu = snakemake.config["jobs_per_gpu"]
with lease(jobs_per_gpu) as gpu:
    import torch

    from hiddencost.runs.features import extract_features

    torch.set_num_threads(snakemake.threads)
    extract_features(
        Path(snakemake.input.backbone[0]).parent,
        snakemake.input.verification,
        Path(snakemake.input.dataset[0]).parent,
        snakemake.output[0],
        compute_device(gpu, jobs_per_gpu),
    )
