from pathlib import Path

from hiddencost.datasets import prepared
from hiddencost.datasets.splits import draw_splits
from hiddencost.files import write_json
from hiddencost.logs import log_to

log_to(snakemake.log[0])
name, seed, folder = snakemake.wildcards.dataset, int(snakemake.wildcards.seed), Path(snakemake.input[0]).parent
permutations = []
if not prepared.PreparedReport.read(folder).failed:
    dataset = prepared.load(folder)
    permutations = draw_splits(name, dataset.train_labels, len(dataset.classes), seed)
write_json(snakemake.output[0], {"dataset": name, "seed": seed, "permutations": permutations})
