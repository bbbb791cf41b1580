from hiddencost.jobs import values
from hiddencost.logs import log_to
from hiddencost.machine import computing
from hiddencost.runs.not_run import write_not_run
from hiddencost.runs.packfile import PackInputs, PackRequest

log_to(snakemake.log[0])
inputs, output = PackInputs.of(snakemake.input), snakemake.output[0]
request = PackRequest.model_validate(values.read(snakemake.params))
if not write_not_run(inputs, request, output):
    # here alone: rows of what has failed are written without a GPU, and the seconds that PyTorch takes
    with computing(snakemake.config["jobs_per_gpu"], snakemake.threads) as device:
        from hiddencost.runs.finetune import finetune_pack

        finetune_pack(inputs, request, output, device)
