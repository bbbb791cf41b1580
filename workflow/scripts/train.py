from hiddencost.jobs import values
from hiddencost.logs import log_to
from hiddencost.machine import computing
from hiddencost.runs.not_run import write_not_run
from hiddencost.runs.packfile import PackInputs, PackRequest

log_to(snakemake.log[0])
inputs, output = PackInputs.of(snakemake.input), snakemake.output[0]
request = PackRequest.model_validate(values.read(snakemake.params))
names = next(iter(snakemake.input.names), None)  # for methods that map by the names of classes
if not write_not_run(inputs, request, output, names):
    # here alone: rows of what has failed are written without a GPU, and the seconds that PyTorch takes
    with computing(snakemake.config["jobs_per_gpu"], snakemake.threads) as device:
        from hiddencost.runs.prompting import train_pack

        memory = snakemake.resources.mem_mb * 2**20
        texts = next(iter(snakemake.input.texts), None)  # of a network that has texts
        train_pack(inputs, request, "resources/plans", output, device, memory, texts, names)
