from pathlib import Path

from hiddencost.compression.verification import VerificationReport
from hiddencost.datasets.prepared import PreparedReport
from hiddencost.jobs import values
from hiddencost.logs import log_to
from hiddencost.machine import computing

log_to(snakemake.log[0])
passed = VerificationReport.read(snakemake.input.verification).passed
with computing(snakemake.config["jobs_per_gpu"], snakemake.threads) as device:
    from hiddencost.networks.embed import embed_texts

    embed_texts(
        Path(snakemake.input.backbone[0]).parent,
        PreparedReport.read(Path(snakemake.input.dataset).parent).classes if passed else [],
        values.read(snakemake.params)["templates"],
        snakemake.output[0],
        device,
    )
