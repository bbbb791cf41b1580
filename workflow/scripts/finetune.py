from hiddencost.jobs import values
from hiddencost.logs import log_to
from hiddencost.machine import compute_device, lease
from hiddencost.runs.not_run import write_not_run
from hiddencost.runs.packfile import PackInputs, PackRequest

log_to(snakemake.log[0])
inputs, output = PackInputs.of(snakemake.input), snakemake.output[0]
request = PackRequest.model_validate(values.read(snakemake.params))
if not write_not_run(inputs, request, output):
    # here alone: rows of what has failed are written without a GPU, and the seconds that PyTorch takes
    jobs_per_gpu = snakemake.config["jobs_per_gpu"]
    with lease(jobs_per_gpu) as gpu:
        import torch

        from hiddencost.runs.finetune import finetune_pack

        torch.set_num_threads(snakemake.threads)
        finetune_pack(inputs, request, output, compute_device(gpu, jobs_per_gpu))
