from pathlib import Path

import torch

from hiddencost.datasets.prepared import PreparedReport
from hiddencost.jobs import values
from hiddencost.logs import log_to
from hiddencost.networks.clip.names import write_names

log_to(snakemake.log[0])
torch.set_num_threads(snakemake.threads)
folder = next((Path(file).parent for file in snakemake.input.network), None)
classes = PreparedReport.read(Path(snakemake.input.dataset).parent).classes
write_names(folder, classes, snakemake.output[0], values.read(snakemake.params)["left_out"])
