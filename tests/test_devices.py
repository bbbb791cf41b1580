import json
import os
import select
import signal
import subprocess
import sys
import time

import pytest
import torch

from hiddencost import machine
from hiddencost.files import atomic

GPUS = ["GPU-aaaa-1", "GPU-bbbb-2"]
# takes a GPU, for which it looks five times a second, says so, and keeps it until it is killed
HOLD = """
import logging, os, sys, time
from hiddencost import machine
machine.POLL = 0.2
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
with machine.lease(*map(int, sys.argv[1:])) as gpu:
    assert "torch" not in sys.modules
    print("has", gpu, os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
    time.sleep(600)
"""
# in the place of nvidia-ml-py: those of its functions that are asked, with the names, arguments, answers and errors
# of its pynvml.py (13.615); who computes is in a file
PYNVML = """
import json, os
from types import SimpleNamespace

NVML_ERROR_UNINITIALIZED, NVML_ERROR_NOT_FOUND, NVML_ERROR_LIBRARY_NOT_FOUND = 1, 6, 12
users = 0


class NVMLError(Exception):
    pass


class NVMLLibraryMismatchError(Exception):
    pass


def _computing():
    if not users:
        raise NVMLError(NVML_ERROR_UNINITIALIZED)
    with open(os.environ["COMPUTING"]) as file:
        return json.load(file)


def nvmlInit():
    global users
    if not os.path.exists(os.environ["COMPUTING"]):
        raise NVMLError(NVML_ERROR_LIBRARY_NOT_FOUND)
    users += 1


def nvmlShutdown():
    global users
    _computing()
    users -= 1


def nvmlDeviceGetHandleByUUID(uuid):
    if uuid not in _computing():
        raise NVMLError(NVML_ERROR_NOT_FOUND)
    return uuid


def nvmlDeviceGetComputeRunningProcesses(handle):
    if _computing()[handle] is None:
        raise NVMLLibraryMismatchError("Unversioned function called")
    return [SimpleNamespace(pid=pid, usedGpuMemory=None) for pid in _computing()[handle]]
"""


@pytest.fixture
def computing(tmp_path, monkeypatch):
    """Say which processes compute on the node's GPUs, as NVML tells it; computing(None): it does not."""
    (tmp_path / "python").mkdir()
    (tmp_path / "python/pynvml.py").write_text(PYNVML)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}/python", prepend=os.pathsep)
    monkeypatch.syspath_prepend(tmp_path / "python")
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    monkeypatch.setenv("COMPUTING", str(tmp_path / "computing.json"))

    def tell(processes):
        path = tmp_path / "computing.json"
        if processes is None:
            path.unlink()
            return
        with atomic(path) as temporary:
            temporary.write_text(json.dumps({gpu: [] for gpu in GPUS} | processes))

    tell({})
    yield tell
    sys.modules.pop("pynvml", None)


@pytest.fixture
def node(tmp_path, monkeypatch, computing):
    """A node with GPUs, as nvidia-smi lists them; node(script) makes nvidia-smi another one."""

    def install(script):
        path = tmp_path / "bin/nvidia-smi"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    install("\n".join(f"echo '{index}, {name}'" for index, name in enumerate(GPUS)))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}/bin", prepend=os.pathsep)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(machine.tempfile, "tempdir", None)  # read TMPDIR again
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # what a lease sets is undone in the end
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    return install


@pytest.fixture
def hold(node):
    """Start a process that takes a GPU."""
    started = []

    def hold(jobs_per_gpu=1, count=1, **environment):
        command = [sys.executable, "-u", "-c", HOLD, str(jobs_per_gpu), str(count)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | environment))
        return started[-1]

    yield hold
    for process in started:
        process.kill()
        process.communicate()


def line(process, seconds=30):
    """The next line that a process writes; None if it writes none."""
    ready, _, _ = select.select([process.stdout], [], [], seconds)
    if not ready:
        return None
    # a byte at a time, so that nothing stays in a buffer that select does not see
    return "".join(iter(lambda: os.read(process.stdout.fileno(), 1).decode(), "\n"))


def taken(process):
    """The GPU that a process takes, now."""
    told, has = line(process), line(process)
    _, gpu, environment = has.split()
    assert gpu == environment
    assert told.startswith(f"computing on {gpu}, ")
    return gpu


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_each_process_takes_a_gpu_of_its_own_and_the_next_waits_until_one_is_killed(hold):
    processes = [hold() for _ in range(3)]
    first = {process: line(process) for process in processes}
    (waiting,) = [process for process in processes if "computing on" not in first[process]]
    assert first[waiting] == "all 2 GPUs are taken: waiting for one; a lease ends with the process that holds it"
    holding = {line(process).split()[1]: process for process in processes if process is not waiting}
    assert sorted(holding) == GPUS
    assert line(waiting, 0.6) is None  # it is said once
    kill(holding[GPUS[1]])
    assert taken(waiting) == GPUS[1]


def test_jobs_that_share_spread_over_the_gpus(hold):
    holding = [hold(2) for _ in range(2)]
    assert sorted(taken(process) for process in holding) == GPUS
    holding += [hold(2) for _ in range(2)]
    assert sorted(taken(process) for process in holding[2:]) == GPUS
    assert "all 2 GPUs are taken" in line(hold(2))


def test_who_wants_a_gpu_alone_does_not_join_those_who_share(hold):
    one = {"CUDA_VISIBLE_DEVICES": "1"}
    shares = hold(2, **one)
    assert taken(shares) == GPUS[1]
    alone = hold(1, **one)
    assert line(alone).startswith("the only GPU is taken: waiting")
    joins = hold(3, **one)  # of another study, that shares otherwise
    assert taken(joins) == GPUS[1]
    kill(shares)
    assert line(alone, 0.6) is None
    kill(joins)
    assert taken(alone) == GPUS[1]
    assert line(hold(12, **one)).startswith("the only GPU is taken: waiting")


@pytest.mark.parametrize(
    ("told", "names"),
    [
        (None, GPUS),
        ("", []),
        (" ", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("1", GPUS[1:]),
        ("1, 0", GPUS[::-1]),
        ("0,-1,1", GPUS[:1]),
        ("0,7,1", GPUS[:1]),  # CUDA reads no further than a GPU that there is not
        ("GPU-bbbb-2", GPUS[1:]),
        ("GPU-b,0", GPUS[::-1]),
        ("0,GPU-aaaa-1", GPUS[:1]),
        ("MIG-cccc,GPU-aaaa-1", ["MIG-cccc", GPUS[0]]),
    ],
)
def test_the_visible_gpus_are_those_that_cuda_would_see(node, monkeypatch, told, names):
    if told is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", told)
    assert machine.visible() == names


def test_without_nvidia_smi_the_variable_alone_tells(node, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.visible() == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,MIG-GPU-a/1/0")
    assert machine.visible() == ["2", "MIG-GPU-a/1/0"]
    for expected in ("2", "MIG-GPU-a/1/0"):
        with machine.lease(1) as gpu:
            assert gpu == expected == os.environ["CUDA_VISIBLE_DEVICES"]
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-GPU-a/1/0")


def test_a_driver_that_fails_is_told(node, caplog):
    node("echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18")
    assert machine.visible() == []
    assert "nvidia-smi failed: Failed to initialize NVML" in caplog.text


def test_without_a_gpu_the_cpu_computes_and_the_log_says_so(node, monkeypatch, caplog, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with caplog.at_level("INFO"), machine.lease(1) as gpu:
        assert gpu is None
        assert machine.compute_device(gpu, 1).type == "cpu"
    assert [record.message for record in caplog.records] == ["no GPU is visible: computing on the CPU"]
    assert not list((tmp_path / "tmp").iterdir())


@pytest.mark.parametrize(
    ("gpu", "usable", "device", "warning"),
    [
        (GPUS[0], True, "cuda", ""),
        (GPUS[0], False, "cpu", f"PyTorch cannot use {GPUS[0]}"),
        (None, True, "cpu", "to use it, set CUDA_VISIBLE_DEVICES=0"),
    ],
)
def test_a_gpu_that_pytorch_cannot_use_is_told(monkeypatch, caplog, gpu, usable, device, warning):
    shares = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: usable)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", shares.append)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)  # whose kernels would be asked for
    assert machine.compute_device(gpu, 4).type == device
    assert shares == ([0.25] if device == "cuda" else [])
    assert warning in caplog.text
    assert bool(warning) == bool(caplog.text)


@pytest.mark.parametrize(
    ("kernels", "capabilities", "fits"),
    [
        (["sm_80", "sm_90"], [(9, 0)], True),
        (["sm_80", "sm_90"], [(8, 9)], True),  # within a major version later cards run what earlier ones do
        (["sm_80", "sm_90"], [(7, 5)], False),
        (["sm_86", "sm_90"], [(8, 0)], False),
        (["sm_80", "sm_90"], [(10, 0)], False),
        (["sm_80", "sm_90", "compute_90"], [(12, 0)], True),  # the driver compiles it
        (["sm_80", "compute_90"], [(7, 0)], False),
        (["sm_90a", "compute_100a"], [(9, 0)], True),
        (["sm_90a", "compute_100a"], [(10, 3)], False),
        (["sm_100f"], [(10, 3)], True),
        (["sm_90", "sm_120"], [(9, 0), (12, 0)], True),
        (["sm_90"], [(9, 0), (12, 0)], False),
        (["gfx90a"], [(9, 0)], True),
    ],
)
def test_a_gpu_without_kernels_in_this_pytorch_is_told_before_the_job(monkeypatch, kernels, capabilities, fits):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda share: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"Card {index}")
    monkeypatch.setattr(torch.cuda, "get_device_capability", capabilities.__getitem__)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: kernels)
    if fits:
        assert machine.compute_device("GPU-aaaa-1", 1).type == "cuda"
        return
    major, minor = capabilities[-1]
    told = (
        rf"Card {len(capabilities) - 1} has CUDA capability {major}\.{minor}, for .* no kernels; it has {kernels[0]}"
    )
    with pytest.raises(RuntimeError, match=told):
        machine.compute_device("GPU-aaaa-1", 1)


def test_a_lease_ends_with_its_block_and_its_locks_are_private_and_look_used(node, tmp_path):
    for _ in range(2):
        with machine.lease(1) as gpu:
            assert gpu == GPUS[0]
        (folder,) = (tmp_path / "tmp").iterdir()
        assert folder.stat().st_mode & 0o777 == 0o700
        locks = list(folder.glob("GPU-aaaa-1.*"))
        assert len(locks) == machine.SLOTS
        assert all(time.time() - lock.stat().st_mtime < 60 for lock in locks)
        for lock in locks:
            os.utime(lock, (0, 0))


def test_several_gpus_are_taken_together_or_not_at_all(node, monkeypatch, caplog, hold):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with machine.lease(1, 2) as gpus:
        assert gpus == ",".join(GPUS) == os.environ["CUDA_VISIBLE_DEVICES"]
        assert line(hold(CUDA_VISIBLE_DEVICES="1")).startswith("the only GPU is taken: waiting")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with machine.lease(1, 4) as gpus:
        assert gpus == ",".join(GPUS)
    assert "4 GPUs were asked for, 2 are visible" in caplog.text


def test_who_wants_two_gpus_waits_for_both(node, monkeypatch, hold):
    one = hold(CUDA_VISIBLE_DEVICES="1")
    assert taken(one) == GPUS[1]
    both = hold(1, 2)
    assert line(both).startswith("1 or more of 2 GPUs are taken: waiting for 2")
    kill(one)
    assert taken(both) == ",".join(GPUS)


def test_a_folder_of_somebody_else_is_refused(node, tmp_path):
    folder = tmp_path / "tmp" / f"hiddencost-{os.getuid()}"
    folder.symlink_to(tmp_path)
    with pytest.raises(PermissionError, match=r"no folder, of user \d+; expected a folder of user"), machine.lease(1):
        pass
    folder.unlink()
    folder.mkdir()
    if os.getuid() == 0:
        os.chown(folder, 12345, 12345)
        with pytest.raises(PermissionError, match="a folder, of user 12345; expected a folder of user 0"):
            machine.lease(1).__enter__()


def test_a_gpu_on_which_somebody_else_computes_is_left_to_them(node, computing, monkeypatch):
    computing({GPUS[0]: [4711]})
    with machine.lease(1) as gpu:
        assert gpu == GPUS[1]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    computing({GPUS[0]: [os.getpid()]})
    with machine.lease(1) as gpu:
        assert gpu == GPUS[0]


def test_where_others_compute_on_all_gpus_it_waits_and_says_for_whom(hold, computing):
    computing({GPUS[0]: [815, 4711], GPUS[1]: [4712]})
    waiting = hold()
    assert line(waiting) == "all 2 GPUs are taken: waiting for one; a lease ends with the process that holds it"
    assert line(waiting) == f"{GPUS[0]}: processes that compute on it: 815, 4711"
    assert line(waiting) == f"{GPUS[1]}: processes that compute on it: 4712"
    assert line(waiting, 0.6) is None
    computing({GPUS[0]: [4711]})
    assert taken(waiting) == GPUS[1]


def test_jobs_that_share_a_gpu_are_no_others_to_each_other(hold, computing):
    one = {"CUDA_VISIBLE_DEVICES": "0"}
    first = hold(2, **one)
    assert taken(first) == GPUS[0]
    computing({GPUS[0]: [first.pid]})
    assert taken(hold(2, **one)) == GPUS[0]


def test_several_gpus_are_those_on_which_nobody_computes(hold, computing):
    computing({GPUS[1]: [4711]})
    both = hold(1, 2)
    assert line(both).startswith("1 or more of 2 GPUs are taken: waiting for 2")
    assert line(both) == f"{GPUS[1]}: processes that compute on it: 4711"
    computing({})
    assert taken(both) == ",".join(GPUS)


@pytest.mark.parametrize(("tells", "why"), [(None, "12"), ({GPUS[0]: None}, "Unversioned function called")])
def test_a_driver_that_does_not_tell_who_computes_keeps_nobody_waiting(node, computing, caplog, tells, why):
    computing(tells)
    with machine.lease(1) as gpu:
        assert gpu == GPUS[0]
    assert f"{GPUS[0]}: who computes on it is not known: {why}" in caplog.text


def test_without_nvidia_ml_py_nobody_is_asked(node, computing, monkeypatch, caplog):
    computing({GPUS[0]: [4711]})
    monkeypatch.setattr(machine, "find_spec", lambda name: None)
    with machine.lease(1) as gpu:
        assert gpu == GPUS[0]
    assert not caplog.text
