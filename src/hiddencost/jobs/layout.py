"""Where what the rules make lies: patterns with wildcards, of a study's products below its folder of results."""

from hiddencost.datasets.prepared import ARRAYS
from hiddencost.methods.registry import JOBS

SHARED = "resources"  # by all studies
FETCHED = {
    "checkpoints": "{home}/checkpoints/{name}/fetched.json",
    "datasets": "{home}/raw/{name}/fetched.json",
    "photos": "{home}/photos/{name}/fetched.json",
}
NETWORK_FILES = ("weights.safetensors", "masks.safetensors", "manifest.json")
IMPORTED = "{home}/backbones/{checkpoint}"
PREPARED_FILES = (*ARRAYS, "dataset.json")
PREPARED = "{home}/datasets/{dataset}/{size}"

# of a study
OWN = "own"  # the home of what is read of the user's own files
LEDGER = "ledger"
BACKBONE = "backbones/{backbone}"
VERIFICATION = "backbones/{backbone}/verification.json"
TRAINED = "upstream/{upstream}/{sparsifier}/{sparsity}/seed{upstream_seed}"
REWIND = "upstream/{upstream}/rewind/epoch{rewind_epoch}/seed{upstream_seed}.state"
SPLIT = "splits/{dataset}/seed{seed}.json"
FEATURES = "features/{backbone}/{dataset}.safetensors"
TEXTS = "texts/{backbone}/{dataset}.safetensors"
NAMES = "names/{dataset}.safetensors"
PACK = {name: f"{job.folder}/{{backbone}}/{{dataset}}/seed{{seed}}.parquet" for name, job in JOBS.items()}
ANALYSIS = {  # by the wildcards of its jobs
    ("backbone",): "analyses/{analysis}/{backbone}.json",
    ("backbone", "dataset"): "analyses/{analysis}/{backbone}/{dataset}.parquet",
}
TABLES = {
    "runs": "tables/runs.parquet",
    "bins": "tables/bins.parquet",
    "summary": "tables/summary.csv",
    "means": "tables/means.csv",
    "mappings": "tables/mappings.parquet",
    "remapped": "tables/remapped.parquet",
    "prompts": "tables/prompts.npz",
    "examples": "tables/examples.npz",
    "upstream": "tables/upstream.csv",
    "matched": "tables/matched.csv",
    # of analyses, where a study asks for them
    "latency": "tables/latency.csv",
    "shift": "tables/shift.csv",
    "shift_cost": "tables/shift_cost.csv",
    "measures": "tables/measures.parquet",
    "why": "tables/why.csv",
    "swaps": "tables/swaps.parquet",
    "split": "tables/split.csv",
}


def imported(checkpoint: str, home: str = SHARED) -> list[str]:
    """Return the files of an imported checkpoint; home: see `places.home`."""
    return [f"{IMPORTED.format(home=home, checkpoint=checkpoint)}/{file}" for file in NETWORK_FILES]


def prepared(dataset: str, size: str | int, home: str = SHARED) -> list[str]:
    """Return the files of a dataset that is prepared at a size (in the words of `datasets.prepare.sized`); home: see
    `places.home`."""
    return [f"{PREPARED.format(home=home, dataset=dataset, size=size)}/{file}" for file in PREPARED_FILES]
