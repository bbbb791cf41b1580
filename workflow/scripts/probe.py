from hiddencost.jobs import values
from hiddencost.logs import log_to
from hiddencost.runs.not_run import write_not_run
from hiddencost.runs.packfile import PackInputs, PackRequest

log_to(snakemake.log[0])
inputs, output = PackInputs.of(snakemake.input), snakemake.output[0]
request = PackRequest.model_validate(values.read(snakemake.params))
if not write_not_run(inputs, request, output):
    # here alone: rows of what has failed are written without the seconds that it takes
    import torch

    from hiddencost.runs.probe import probe_pack

    torch.set_num_threads(snakemake.threads)
    texts = next(iter(snakemake.input.texts), None)  # of a network that has texts
    probe_pack(inputs, snakemake.input.features, request, output, texts)
