from pathlib import Path

from hiddencost import datasets
from hiddencost.files import read_json, write_json
from hiddencost.logs import log_to
from hiddencost.splits import draw_splits

log_to(snakemake.log[0])
name, seed, folder = snakemake.wildcards.dataset, int(snakemake.wildcards.seed), Path(snakemake.input[0]).parent
permutations = []
if not read_json(folder / "dataset.json")["failed"]:
    dataset = datasets.load(folder)
    permutations = draw_splits(name, dataset.train_labels, len(dataset.classes), seed)
write_json(snakemake.output[0], {"dataset": name, "seed": seed, "permutations": permutations})
