from pathlib import Path

from hiddencost.logs import log_to
from hiddencost.machine import computing

log_to(snakemake.log[0])
with computing(snakemake.config["jobs_per_gpu"], snakemake.threads) as device:
    from hiddencost.runs.features import extract_features

    extract_features(
        Path(snakemake.input.backbone[0]).parent,
        snakemake.input.verification,
        Path(snakemake.input.dataset[0]).parent,
        snakemake.output[0],
        device,
    )
