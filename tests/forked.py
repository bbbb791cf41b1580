"""Snakemake in forks of one process that has imported it, which is half of a short call: for tests that make many.

Its jobs, too, can be forks: what starts them, Python and the libraries, takes longer than what a stubbed job does.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import shlex
import socket
import subprocess
import sys
import traceback
from contextlib import suppress
from functools import cache, partial
from types import SimpleNamespace


def snakemake(project, arguments, environment, output, with_jobs=False, preloaded=""):
    """Call Snakemake in a folder as `python -m snakemake` would.

    with_jobs: whether its jobs are forks, too, which nothing tells from others but a list of processes.
    preloaded: libraries, comma between, that are imported before; they must not have computed anything, as threads do
        not outlive a fork.
    Returns the exit status; what it says is in the file `output`.
    """
    server = _server(preloaded)
    call = {"project": str(project), "arguments": [*map(str, arguments)], "environment": dict(environment)}
    print(json.dumps(call | {"output": output, "with_jobs": with_jobs}), file=server.stdin, flush=True)
    return int(server.stdout.readline())


@cache
def _server(preloaded):
    command = [sys.executable, __file__, preloaded]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _take(environment):
    """Take an environment, as a process that starts in it would."""
    os.environ.clear()
    os.environ.update(environment)
    folders = environment["PYTHONPATH"].split(os.pathsep)
    sys.path[:] = [*folders, *(path for path in sys.path if path not in folders)]


class _Job:
    """A script that runs in a fork, as far as Snakemake asks of a Popen."""

    def __init__(self, server, file, environment):
        answers, answering = socket.socketpair()
        socket.send_fds(server, [json.dumps([file, environment]).encode()], [answering.fileno()])
        answering.close()
        self.answers = answers.makefile("rw")
        self.pid = int(self.answers.readline())

    def wait(self):
        print(file=self.answers, flush=True)
        return int(self.answers.readline())


def _start(server, command, **options):
    """Start what Snakemake starts by a shell: the script of a job as a fork, all else as it is."""
    *_, python, file = shlex.split(command)
    if python == sys.executable and file.endswith(".py"):
        return _Job(server, file, options["env"])
    return subprocess.Popen(command, **options)


def _fork_jobs():
    """Go on as Snakemake, which is imported and has not begun, in a fork, and run its jobs in forks of this process.

    Returns in Snakemake None, in a job its script. This process ends with Snakemake, and with its status.
    """
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    if not (called := os.fork()):
        theirs.close()
        sys.modules["snakemake.shell"].sp = SimpleNamespace(**vars(subprocess) | {"Popen": partial(_start, ours)})
        return None
    ours.close()
    while True:
        message, answering, *_ = socket.recv_fds(theirs, 2**20, 1)
        if not message:  # Snakemake has ended
            status = os.waitstatus_to_exitcode(os.waitpid(called, 0)[1])
            with suppress(ChildProcessError):
                while os.wait():
                    pass
            os._exit(status)
        if not os.fork():  # one that waits for the job, and tells how it has ended
            if not (job := os.fork()):
                file, environment = json.loads(message)
                _take(environment)
                return file
            with open(answering[0], "w") as answers:
                print(job, file=answers, flush=True)
                os.read(answering[0], 1)  # until Snakemake waits: before, it looks at the process
                print(os.waitstatus_to_exitcode(os.waitpid(job, 0)[1]), file=answers)
            os._exit(0)
        os.close(answering[0])


def _end_as(function):
    """Call a function, and end as a process does that has called it, but for taking apart, object by object, what was
    imported, which takes longer than most jobs."""
    status = 0
    try:
        function()
    except SystemExit as error:
        if error.code is not None:
            status = error.code if isinstance(error.code, int) else print(error.code, file=sys.stderr) or 1
    except BaseException:
        traceback.print_exc()
        status = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    # what each call would import: pandas with a plugin, requests with smart_open, the other plugins with the parser
    import pyarrow.parquet  # noqa: F401
    import smart_open  # noqa: F401
    import snakemake_executor_plugin_slurm  # noqa: F401
    from snakemake.cli import get_argument_parser, main

    get_argument_parser()
    # and what the project's modules import beside
    import filelock  # noqa: F401
    import PIL.Image  # noqa: F401
    import pydantic
    import safetensors.numpy  # noqa: F401
    import scipy.special  # noqa: F401
    import tqdm  # noqa: F401
    import yaml  # noqa: F401

    pydantic.create_model("Any", field=(int, pydantic.Field(gt=0)))  # a first one imports, and looks for plugins
    for library in filter(None, sys.argv[1].split(",")):
        importlib.import_module(library)
    gc.freeze()

    for line in sys.stdin:
        call = json.loads(line)
        if not (pid := os.fork()):
            break
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    else:
        sys.exit()
    for descriptor, path, flags in ((0, os.devnull, os.O_RDONLY), (1, call["output"], os.O_WRONLY)):
        os.dup2(os.open(path, flags), descriptor)
    os.dup2(1, 2)
    os.chdir(call["project"])
    del sys.path[0]  # this file's folder
    _take(call["environment"])
    sys.dont_write_bytecode = True
    sys.modules.pop("sitecustomize", None)
    with suppress(ModuleNotFoundError):
        importlib.import_module("sitecustomize")  # of this environment, which a new process would begin with
    script = _fork_jobs() if call["with_jobs"] else None
    sys.argv = [script] if script else ["snakemake", *call["arguments"]]
    _end_as(partial(runpy.run_path, script, run_name="__main__") if script else main)
