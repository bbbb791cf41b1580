# What jobs ask of a machine or a scheduler: memory (MB), time (minutes), a GPU. A profile's set-resources go before.

from functools import cache

from hiddencost.jobs import cost, resources

if workflow.is_main_process:  # in the process that plans alone, as it can take seconds
    try:
        resources.count_arithmetic(CALL)
    except StudyError as error:
        raise WorkflowError(str(error)) from None


@cache
def here():
    """Whether jobs run on this machine, and not by a scheduler.

    Then its GPUs and memory are what Snakemake shares out, unless it was told: snakemake --resources gpu=1 mem_mb=16000

    To be asked when Snakemake knows its executor, so not while it reads the rules, and before it makes its scheduler of
    jobs, which copies what there is to share out. Between the two it builds the graph of jobs and calls input functions:
    those of import_checkpoint, prepare_dataset, sparsify and rewind_point, of which all jobs that take much come, ask
    (`in_time`). The functions of resources themselves are called later where a study is fresh.
    """
    # a dry run does not say for which executor: a scheduler's takes --jobs
    if workflow.dryrun and workflow.resource_settings.nodes is not None:
        return False
    if not (workflow.is_main_process and workflow.local_exec):
        return False
    for resource, amount in {"gpu": len(gpus()) * CALL.study.jobs_per_gpu, "mem_mb": cost.machine_mb()}.items():
        if resource not in workflow.global_resources:
            workflow.register_resource(resource, amount)
    return True


def in_time(function):
    """An input function (see `of_job`) that has what jobs share registered: see `here`."""
    of_wildcards = of_job(function)

    def files(wildcards):
        here()
        return of_wildcards(wildcards)

    return files


@cache
def gpus():
    return machine.visible()


def device():
    """What jobs that can use a GPU compute on: "gpu" or "cpu"."""
    return "gpu" if not here() or gpus() else "cpu"


def gpu(wildcards):
    return int(device() == "gpu")


def reading_threads(wildcards):
    return resources.upstream_threads(device())


def amount(function):
    """A function of the call, of wildcards by their names, of the device and the attempt, as a resource takes it."""
    names = list(signature(function).parameters)[1:]

    def of_attempt(wildcards, attempt):
        known = {"attempt": attempt} | ({"device": device()} if "device" in names else {})
        return function(CALL, *(known[name] if name in known else getattr(wildcards, name) for name in names))

    return of_attempt
