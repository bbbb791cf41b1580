# What jobs ask of a machine or a scheduler: memory (MB), time (minutes), a GPU. A profile's set-resources go before.

from hiddencost import cost, devices

# jobs run here, and not by a scheduler, which takes --jobs
HERE = workflow.is_main_process and workflow.resource_settings.nodes is None
GPUS = devices.visible() if HERE else []
ON = "gpu" if GPUS or not HERE else "cpu"
GPU = int(ON == "gpu")

config["jobs_per_gpu"] = study.jobs_per_gpu  # for the scripts: as a param it would run jobs again
if HERE:
    # what Snakemake shares out among its jobs, unless it was told: snakemake --resources gpu=1 mem_mb=16000
    for resource, amount in {"gpu": len(GPUS) * study.jobs_per_gpu, "mem_mb": cost.machine_mb()}.items():
        if resource not in workflow.global_resources:
            workflow.register_resource(resource, amount)


def network(wildcards):
    """The catalog's entry of a job's network."""
    name = wildcards.get("checkpoint") or study.backbone(wildcards.backbone).checkpoint
    return CHECKPOINTS[name]


def pack(wildcards):
    """The catalog's entries of a job's network and dataset, without gaps."""
    target = study.dataset(wildcards.dataset)
    manifest = Path(f"resources/datasets/{target.name}/{target.image_size}/dataset.json")
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
    return cost.minutes(cost.train_seconds(study, methods_of("train"), *pack(wildcards)), attempt)


def train_memory(wildcards, attempt):
    size = study.dataset(wildcards.dataset).image_size
    return cost.train_mb(study, *pack(wildcards), size, ON) * attempt


def finetune_runtime(wildcards, attempt):
    return cost.minutes(cost.train_seconds(study, methods_of("finetune"), *pack(wildcards)), attempt)


def finetune_memory(wildcards, attempt):
    batch_size = study.recipe("finetune", wildcards.dataset)["batch_size"]
    return cost.finetune_mb(study, *pack(wildcards), batch_size, ON) * attempt


def features_runtime(wildcards, attempt):
    return cost.minutes(cost.features_seconds(study, *pack(wildcards)), attempt)


def features_memory(wildcards, attempt):
    return cost.features_mb(study, *pack(wildcards), ON) * attempt


def probe_runtime(wildcards, attempt):
    _, dataset = pack(wildcards)
    return cost.minutes(cost.probe_seconds(study, dataset), attempt)


def probe_memory(wildcards, attempt):
    _, dataset = pack(wildcards)
    return cost.probe_mb(dataset) * attempt
