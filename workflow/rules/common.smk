# The study, checked before anything else, and how rules call its functions, which are in src/hiddencost/jobs.

import atexit
import os
import re
import signal
import sys
from contextlib import chdir
from functools import lru_cache
from inspect import signature
from pathlib import Path

from snakemake.exceptions import WorkflowError

# of another workflow, which then has its own config, names of rules and output
IS_MODULE = not workflow.modifier.is_main_snakefile()
FOLDER, ROOT = Path.cwd(), Path(os.path.abspath(BASE)).parent
if set("{}") & set(str(ROOT)):
    raise WorkflowError(f"{ROOT}: the checkout's path has a brace, a wildcard of Snakemake; expected none")
# jobs run the package of this checkout, in any environment and locale
sys.path.insert(0, str(ROOT / "src"))
os.environ.update(PYTHONPATH=str(ROOT / "src"), PYTHONUTF8="1", MPLBACKEND="agg", MATPLOTLIBRC=os.devnull)

from hiddencost import logs, machine, memory
from hiddencost.jobs import analyses, away, call, checkpoints, datasets, downloads, ending, grid, layout, outlook
from hiddencost.jobs import places, results, tidy, training, upstream, values
from hiddencost.messages import StudyError

for variable, value in memory.ENVIRONMENT.items():
    os.environ.setdefault(variable, value)

# a study is whole: another one replaces config.yaml and does not extend it
STUDY_FILES = [] if IS_MODULE else workflow.overwrite_configfiles or [Path("config.yaml")]
STUDY_FILE = ", ".join(map(os.path.relpath, STUDY_FILES)) or "the module's config"
COMMAND = "snakemake" + (f" --configfile {STUDY_FILE}" if STUDY_FILES == workflow.overwrite_configfiles else "")
try:
    told = call.read_config(STUDY_FILES, config if IS_MODULE else workflow.config_settings.config, sys.argv[1:])
    stated = STUDY_FILE if IS_MODULE else call.stated_in(STUDY_FILE, workflow.config_settings.config)
    CALL = call.read_call(told, stated, COMMAND, is_job=not workflow.is_main_process)
    results.claims(CALL)
    grid.left_out(CALL)
    PREPARED_HERE = datasets.prepared_here(CALL)
    away.refuse_unmade(CALL)
except StudyError as error:
    raise WorkflowError(str(error)) from None
if not (IS_MODULE or workflow.overwrite_configfiles):  # read by now: Snakemake keeps it in archives of the workflow

    configfile: "config.yaml"


# for the scripts: as params they would run jobs again
config = config | {"offline": CALL.offline, "jobs_per_gpu": CALL.study.jobs_per_gpu}
os.environ[logs.TENSORBOARD] = "true" if CALL.tensorboard else ""

RESULTS, OUTPUT = CALL.results, CALL.output
if workflow.modifier.modify_path(RESULTS) != RESULTS:
    raise WorkflowError(
        "the module has a `prefix`, which its plan does not know; expected none: snakemake --directory"
    )
for folder in (Path(RESULTS), Path("resources")):
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not (os.access(existing, os.W_OK) or workflow.output_settings.dryrun):
        raise WorkflowError(f"{folder}: {existing.absolute()} cannot be written to; expected a folder that can")
CONCLUDED_BEFORE = ending.time_of(ending.conclude_log(CALL))


def any_of(names):
    """A wildcard's constraint to be one of some names; of none, to be nothing that a path can have."""
    return "|".join(map(re.escape, names)) or "(?!)"


wildcard_constraints:
    home=any_of((layout.SHARED, f"{RESULTS}/{layout.OWN}")),
    checkpoint=any_of(CALL.published),
    backbone=any_of(grid.axes(CALL.study)["backbone"]),
    dataset=any_of(CALL.datasets),
    size=r"\d+(-[a-z]+-[a-z]+)?",
    seed=r"\d+",


def of_job(function, finish=lambda value: value):
    """An input function: what a function of the call, and of wildcards by their names, tells of a job."""
    names = list(signature(function).parameters)[1:]
    # of the last job alone: each of its params asks
    of_names = lru_cache(1)(lambda *wildcards: finish(function(CALL, *wildcards)))

    def of_wildcards(wildcards):
        return of_names(*(getattr(wildcards, name) for name in names))

    return of_wildcards


def params_of(function, *names):
    """The settings that a function of the call and of wildcards tells of a job, as params of these names: see
    `values`."""
    texts = of_job(function, lambda of_names: values.texts(of_names, names))

    def param(name):
        return lambda wildcards: texts(wildcards)[name]

    return {name: param(name) for name in names}


def code(script):
    """Digest of a script and of the project's code that it stands on: an edit of it is a reason to run again."""
    return values.text("code", call.code(ROOT, script))


def end_with_the_terminal():
    """Let a closed terminal end the call in good order."""
    # SIGHUP would kill Snakemake and leave its lock, SIGTERM does not; nohup has SIGHUP ignored, and so it stays
    if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
        signal.signal(signal.SIGHUP, signal.getsignal(signal.SIGTERM))


def begin_in_order():
    """Put the folders in order once the call has the lock, which a partial one goes without."""
    if not CALL.partial:
        tidy.tidy(CALL)


def planned_files():
    """The files of the jobs that this call has run, or that a dry run would, those that were asked for first."""
    jobs = sorted(workflow.dag.jobs, key=lambda job: job not in workflow.dag.targetjobs)
    return [str(file) for job in jobs if workflow.dag.needrun(job) for file in job.output]


def concluding():
    """The name of the rule `conclude`, which is another where a workflow takes it as a module under another."""
    return rules.conclude.rule.name


def is_whole():
    """Whether this call is to make the whole study."""
    return any(job.rule.name == concluding() for job in workflow.dag.jobs)


def print_outlook():
    if workflow.dryrun:
        bench = ROOT / "bench/results/throughput.json"
        capacity = len(gpus()), workflow.resource_settings.nodes
        planned, whole = (planned_files(), is_whole() and not CALL.partial) if workflow.dag else ((), True)
        with chdir(FOLDER):  # at the end Snakemake has left the one of --directory
            print(outlook.describe(CALL, planned, bench, *capacity, whole))


if workflow.is_main_process and not IS_MODULE:
    atexit.register(print_outlook)
