from pathlib import Path

from hiddencost.files import canonical, sha256_file, sha256_text
from hiddencost.jobs import values
from hiddencost.logs import log_to
from hiddencost.machine import lease

log_to(snakemake.log[0])
inputs = snakemake.input
job, output = values.read(snakemake.params), Path(snakemake.output[0])
what = "rewind_point" if "until" in job else "sparsify"
job["output"] = str(output if "until" in job else output.parent)
# what is kept of an interrupted training is of these settings, with the code's digest, and these inputs
given = sorted((path, sha256_file(path)) for path in inputs if path.endswith((".json", ".state")))
job["unfinished"] = str(output.parent / f"unfinished-{sha256_text(canonical([job, given]))[:16]}.state")
if inputs.get("ticket"):
    job |= {"ticket": str(Path(inputs.ticket[0]).parent), "rewind": inputs.rewind[0]}
jobs_per_gpu, gpus = snakemake.config["jobs_per_gpu"], snakemake.resources.get("gpu", 0)
with lease(jobs_per_gpu, max(1, gpus)) as leased:
    # here alone: PyTorch would not see the lease
    from hiddencost.upstream import launch

    workers = snakemake.threads if leased else 0
    launch.run(what, job, leased, jobs_per_gpu, snakemake.threads, workers)
