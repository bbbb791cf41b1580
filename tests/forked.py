"""Snakemake in forks of one process that has imported it, which is half of a short call: for tests that make many."""

import json
import os
import subprocess
import sys
from functools import cache


def snakemake(project, arguments, environment, output):
    """Call Snakemake in a folder as `python -m snakemake` would.

    Returns the exit status; what it says is in the file `output`.
    """
    server = _server()
    call = {"project": str(project), "arguments": [*map(str, arguments)], "environment": dict(environment)}
    print(json.dumps(call | {"output": output}), file=server.stdin, flush=True)
    return int(server.stdout.readline())


@cache
def _server():
    return subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


if __name__ == "__main__":
    # what each call would import: pandas with a plugin, requests with smart_open, the other plugins with the parser
    import pyarrow.parquet  # noqa: F401
    import smart_open  # noqa: F401
    import snakemake_executor_plugin_slurm  # noqa: F401
    from snakemake.cli import get_argument_parser, main

    get_argument_parser()

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
    os.environ.clear()
    os.environ.update(call["environment"])
    sys.path[:1] = call["environment"]["PYTHONPATH"].split(os.pathsep)  # in the place of this file's folder
    sys.dont_write_bytecode = True
    sys.argv = ["snakemake", *call["arguments"]]
    main()
