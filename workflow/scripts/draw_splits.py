from pathlib import Path

from hiddencost import datasets
from hiddencost.files import write_json
from hiddencost.logs import log_to
from hiddencost.splits import draw_splits

log_to(snakemake.log[0])
name, seed = snakemake.wildcards.dataset, int(snakemake.wildcards.seed)
dataset = datasets.load(Path(snakemake.input[0]).parent)
permutations = draw_splits(name, dataset.train_labels, len(dataset.classes), seed)
write_json(snakemake.output[0], {"dataset": name, "seed": seed, "permutations": permutations})
