# What jobs ask of a machine or a scheduler: memory (MB), time (minutes), a GPU. A profile's set-resources go before.

from functools import cache

from hiddencost import machine
from hiddencost.jobs import cost
from hiddencost.methods.registry import run_by

config["jobs_per_gpu"] = study.jobs_per_gpu  # for the scripts: as a param it would run jobs again


@cache
def here():
    """Whether jobs run on this machine, and not by a scheduler.

    Then its GPUs and memory are what Snakemake shares out, unless it was told: snakemake --resources gpu=1 mem_mb=16000

    To be asked when Snakemake knows its executor, so not while it reads the rules, and before it makes its scheduler of
    jobs, which copies what there is to share out. Between the two it builds the graph of jobs and calls input functions:
    those of fetch_checkpoint, prepare_dataset, sparsify and rewind_point, of which all jobs that take much come, ask.
    The functions of resources themselves are called later where a study is fresh.
    """
    # a dry run does not say for which executor: a scheduler's takes --jobs
    if workflow.dryrun and workflow.resource_settings.nodes is not None:
        return False
    if not (workflow.is_main_process and workflow.local_exec):
        return False
    for resource, amount in {"gpu": len(gpus()) * study.jobs_per_gpu, "mem_mb": cost.machine_mb()}.items():
        if resource not in workflow.global_resources:
            workflow.register_resource(resource, amount)
    return True


@cache
def gpus():
    return machine.visible()


def device():
    """What jobs that can use a GPU compute on: "gpu" or "cpu"."""
    return "gpu" if not here() or gpus() else "cpu"


def gpu(wildcards):
    return int(device() == "gpu")


def network(wildcards):
    """The catalog's entry of a job's network."""
    name = wildcards.get("checkpoint") or study.backbone(wildcards.backbone).checkpoint
    return CHECKPOINTS[name]


def pack(wildcards):
    """The catalog's entries of a job's network and dataset, without gaps."""
    target = study.dataset(wildcards.dataset)
    manifest = Path(f"resources/datasets/{target.name}/{sizes_of(target.name)[0]}/dataset.json")
    found = read_json(manifest) if target.own and manifest.exists() else None
    return cost.described(network(wildcards), DATASETS[target.name], found)


def short_runtime(wildcards, attempt):
    return cost.minutes(0, attempt)


def network_memory(wildcards, attempt):
    return cost.network_mb(network(wildcards)) * attempt


def prepare_runtime(wildcards, attempt):
    return cost.minutes(cost.prepare_seconds(DATASETS[wildcards.dataset]), attempt)


def prepare_memory(wildcards, attempt):
    return cost.prepare_mb(DATASETS[wildcards.dataset]) * attempt


def train_runtime(wildcards, attempt):
    backbone = study.backbone(wildcards.backbone)
    return cost.minutes(cost.train_seconds(study, backbone, run_by("train"), *pack(wildcards)), attempt)


def train_memory(wildcards, attempt):
    backbone = study.backbone(wildcards.backbone)
    size = study.sizes(wildcards.dataset, backbone)["train"]
    return cost.train_mb(study, backbone, *pack(wildcards), size, device()) * attempt


def texts_runtime(wildcards, attempt):
    _, dataset = pack(wildcards)
    told = study.clip.templates
    count = (PUBLISHED_TEMPLATES if told == "published" else len(told)) * len(dataset["classes"])
    return cost.minutes(cost.texts_seconds(count, network(wildcards)), attempt)


def finetune_runtime(wildcards, attempt):
    backbone = study.backbone(wildcards.backbone)
    return cost.minutes(cost.train_seconds(study, backbone, run_by("finetune"), *pack(wildcards)), attempt)


def finetune_memory(wildcards, attempt):
    batch_size = study.recipe("finetune", wildcards.dataset, wildcards.backbone)["batch_size"]
    return cost.finetune_mb(study, *pack(wildcards), batch_size, device()) * attempt


def features_runtime(wildcards, attempt):
    return cost.minutes(cost.features_seconds(study, study.backbone(wildcards.backbone), *pack(wildcards)), attempt)


def features_memory(wildcards, attempt):
    return cost.features_mb(study, study.backbone(wildcards.backbone), *pack(wildcards), device()) * attempt


def probe_runtime(wildcards, attempt):
    _, dataset = pack(wildcards)
    return cost.minutes(cost.probe_seconds(study, dataset), attempt)


def probe_memory(wildcards, attempt):
    _, dataset = pack(wildcards)
    return cost.probe_mb(dataset) * attempt


@cache
def upstream_arithmetic(name):
    """The multiply-adds of an image (in billions) and the parameters of a network that the study trains."""
    from hiddencost.upstream import check  # PyTorch and timm, which take seconds

    trained = study.trained(name)
    return check.arithmetic(CHECKPOINTS[name]["architecture"], trained.image_size, trained.recipe)


# in the process that plans alone, as it takes seconds
if workflow.is_main_process:
    for name, entry in PUBLISHED.items():
        if entry["gmacs"] is None:
            try:
                gmacs, parameters = family_of(entry["architecture"]).count_multiply_adds(entry["architecture"])
            except ValueError as error:
                raise WorkflowError(f"{STUDY_FILE}: checkpoint {name}: {error}") from None
            # a new entry: that of the catalog is kept for others
            CHECKPOINTS[name] = entry | {"gmacs": gmacs, "weights_mb": 4 * parameters / 1e6}
    for one in study.upstream:
        try:
            CHECKPOINTS[one.name]["gmacs"] = upstream_arithmetic(one.name)[0] * (224 / one.image_size) ** 2
        except ValueError as error:
            raise WorkflowError(f"{STUDY_FILE}: upstream {one.name}: {error}") from None


def upstream_gflop(name):
    """The GFLOP of a training."""
    trained = study.trained(name)
    counts = trained.dataset and DATASETS[trained.dataset]["counts"]
    images = counts["train"] if counts else cost.IMAGENET
    return cost.upstream_gflop(trained.recipe.epochs, images, upstream_arithmetic(name)[0])


def upstream_threads(wildcards):
    return cost.READERS if device() == "gpu" else 1


def upstream_memory(wildcards, attempt):
    trained, (_, parameters) = study.trained(wildcards.upstream), upstream_arithmetic(wildcards.upstream)
    return cost.upstream_mb(parameters, trained.recipe.batch_size, trained.image_size, device()) * attempt


def upstream_runtime(wildcards, attempt):
    return cost.upstream_minutes(upstream_gflop(wildcards.upstream), attempt)
