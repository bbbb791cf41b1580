"""GPUs of this machine: which there are, and a lease of some for this process. Imported before PyTorch, which then
sees those GPUs alone."""

import gc
import logging
import os
import platform
import re
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)
SLOTS = 12  # of a GPU: so many that 1, 2, 3, 4, 6 or 12 jobs can share it evenly, beside jobs that share otherwise
POLL = 2  # seconds


def visible() -> list[str]:
    """Return the names of the GPUs that this process may use: those of CUDA_VISIBLE_DEVICES, or all.

    A name is the UUID where nvidia-smi tells it, else what CUDA_VISIBLE_DEVICES says (a UUID, MIG instance or index);
    indices count as nvidia-smi does. Like CUDA, it reads CUDA_VISIBLE_DEVICES up to the first that there is not.
    """
    setting = os.environ.get("CUDA_VISIBLE_DEVICES")
    if setting is not None and not setting.strip():
        return []
    installed = _installed()
    if setting is None:
        return list(installed.values())
    names = []
    for token in map(str.strip, setting.split(",")):
        if token.startswith(("GPU-", "MIG-")):  # a UUID may be cut short
            names.append(next((uuid for uuid in installed.values() if uuid.startswith(token)), token))
        elif token.isdigit() and (token in installed or not installed):
            names.append(installed.get(token, token))
        else:
            break
    return list(dict.fromkeys(names))


def _installed() -> dict[str, str]:
    """Return the UUIDs of the GPUs that nvidia-smi lists, by index; none, with a warning, where it fails."""
    if not (command := shutil.which("nvidia-smi")):
        return {}
    query = [command, "--query-gpu=index,uuid", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        log.warning("no GPU is known, as nvidia-smi failed: %s", error)
        return {}
    if done.returncode:
        log.warning("no GPU is known, as nvidia-smi failed: %s", (done.stdout + done.stderr).strip())
    return dict(re.findall(r"^(\d+), (GPU-\S+)$", done.stdout, re.MULTILINE))


@contextmanager
def lease(jobs_per_gpu: int, count: int = 1) -> Iterator[str | None]:
    """Take GPUs for this process. Before PyTorch is imported: CUDA_VISIBLE_DEVICES is set to them, and stays so.

    It waits while all are taken by processes of the same user that hold a lease; the kernel ends the lease of one
    that dies. Where nvidia-ml-py is installed, a GPU on which another process computes, and no lease is held, is
    taken, too.

    Args:
        jobs_per_gpu: so many share each GPU, of which this is one; a divisor of SLOTS.
        count: of GPUs; where there are fewer it takes all.

    Yields:
        The GPU's name (names, with commas between); None where there is none.

    Raises:
        PermissionError: where the folder of the locks belongs to somebody else.
    """
    gpus = visible()
    if not gpus:
        log.info("no GPU is visible: computing on the CPU")
        yield None
        return
    if len(gpus) < count:
        log.warning("%d GPUs were asked for, %d are visible: computing on these", count, len(gpus))
        count = len(gpus)
    folder, slots, has_logged = _folder(), SLOTS // jobs_per_gpu, False
    while not (taken := _take(gpus, count, slots, folder)):
        if not has_logged:
            which = f"all {len(gpus)} GPUs are" if len(gpus) > 1 else "the only GPU is"
            if count > 1:
                which = f"{len(gpus) - count + 1} or more of {len(gpus)} GPUs are"
            wanted = "one" if count == 1 else str(count)
            log.info("%s taken: waiting for %s; a lease ends with the process that holds it", which, wanted)
            for gpu in gpus:
                if others := _others(gpu):
                    log.info("%s: processes that compute on it: %s", gpu, ", ".join(map(str, others)))
            has_logged = True
        time.sleep(POLL)
    gpu, locks = taken
    try:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
        log.info("computing on %s, %s", gpu, f"shared by {jobs_per_gpu} jobs" if jobs_per_gpu > 1 else "alone")
        yield gpu
    finally:
        for lock in locks:
            lock.release()


def _folder() -> Path:
    """Return the folder of the locks, of this machine and user: a network home would join machines."""
    folder = Path(tempfile.gettempdir(), f"hiddencost-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no folder"
        raise PermissionError(
            f"{folder}: {kind}, of user {status.st_uid}; expected a folder of user {os.getuid()}, for locks. "
            "Remove it, or set TMPDIR to another place"
        )
    folder.chmod(0o700)
    return folder


def _take(gpus: list[str], count: int, slots: int, folder: Path) -> tuple[str, list[FileLock]] | None:
    """Lock so many slots of each of the `count` GPUs that have most of them free, or none at all."""
    with FileLock(folder / "choosing.lock"):  # one at a time, so that no two take half of what each needs
        files = {gpu: [folder / f"{gpu.replace('/', '_')}.{slot}.lock" for slot in range(SLOTS)] for gpu in gpus}
        free = {gpu: [lock for file in files[gpu] if (lock := _try(file))] for gpu in gpus}
        # where some are taken, who computes is a process of this user's, with which it is shared
        open_to_us = {gpu: 0 if len(free[gpu]) == SLOTS and _others(gpu) else len(free[gpu]) for gpu in gpus}
        chosen = sorted(gpus, key=lambda gpu: -open_to_us[gpu])[:count]
        enough = all(open_to_us[gpu] >= slots for gpu in chosen)
        taken = [lock for gpu in chosen for lock in free[gpu][:slots]] if enough else []
        for lock in (lock for locks in free.values() for lock in locks if lock not in taken):
            lock.release()
        for lock in taken:
            os.utime(lock.lock_file)  # what cleans the folder for temporary files looks at the age
    return (",".join(chosen), taken) if taken else None


def _try(file: Path) -> FileLock | None:
    lock = FileLock(file)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return None
    return lock


def _others(gpu: str) -> list[int]:
    """Return the processes, but for this one, that compute on a GPU, by NVML; none where nvidia-ml-py is not
    installed, or the driver does not tell.

    gpu: its UUID, or a MIG instance's; of an index nothing is asked.
    """
    if find_spec("pynvml") is None or not gpu.startswith(("GPU-", "MIG-")):
        return []
    import pynvml

    try:
        pynvml.nvmlInit()
        try:
            running = pynvml.nvmlDeviceGetComputeRunningProcesses(pynvml.nvmlDeviceGetHandleByUUID(gpu))
        finally:
            pynvml.nvmlShutdown()
    except (pynvml.NVMLError, pynvml.NVMLLibraryMismatchError) as error:  # the latter of an old driver
        log.warning("%s: who computes on it is not known: %s", gpu, error)
        return []
    return sorted({process.pid for process in running} - {os.getpid()})


def compute_device(gpu: str | None, jobs_per_gpu: int) -> "torch.device":
    """Return PyTorch's device for what `lease` gave: "cuda" for a GPU that PyTorch can use, else "cpu".

    Args:
        gpu: the name that `lease` yielded.
        jobs_per_gpu: that share a GPU: PyTorch takes no more than this job's share of its memory.

    Raises:
        RuntimeError: for a GPU for which this PyTorch has no kernels.
    """
    import torch

    usable = torch.cuda.is_available()
    if gpu and not usable:
        log.warning("PyTorch cannot use %s (its build, or the driver): computing on the CPU", gpu)
    if usable and not gpu:
        log.warning("PyTorch finds a GPU that nvidia-smi does not tell: to use it, set CUDA_VISIBLE_DEVICES=0")
    if gpu and usable:
        for index in range(torch.cuda.device_count()):
            _require_kernels(torch.cuda.get_device_name(index), torch.cuda.get_device_capability(index))
        torch.cuda.set_per_process_memory_fraction(1 / jobs_per_gpu)
    return torch.device("cuda" if gpu and usable else "cpu")


@contextmanager
def computing(jobs_per_gpu: int, threads: int) -> Iterator["torch.device"]:
    """Take a GPU, where there is one, and set PyTorch's number of threads. Before PyTorch is imported, see `lease`.

    Args:
        jobs_per_gpu: that share a GPU, of which this is one.
        threads: of this process.

    Yields:
        PyTorch's device to compute on, see `compute_device`.
    """
    with lease(jobs_per_gpu) as gpu:
        import torch

        torch.set_num_threads(threads)
        yield compute_device(gpu, jobs_per_gpu)


def _require_kernels(name: str, capability: tuple[int, int]) -> None:
    """Raise RuntimeError where this PyTorch has no kernels for a GPU of a name and CUDA capability."""
    import torch

    # sm_: machine code, for its major version from its minor one on; compute_: code that the driver compiles, for
    # all from its version on; with an a behind, either is for its own version alone. ROCm's names are others: passed
    listed = " ".join(torch.cuda.get_arch_list())
    known = [
        (kind, (int(major), int(minor)), only)
        for kind, major, minor, only in re.findall(r"\b(sm|compute)_(\d+)(\d)(a?)f?\b", listed)
    ]
    fitting = [
        version == capability
        if only
        else version <= capability and (kind == "compute" or version[0] == capability[0])
        for kind, version, only in known
    ]
    if known and not any(fitting):
        raise RuntimeError(
            f"{name} has CUDA capability {capability[0]}.{capability[1]}, for which PyTorch {torch.__version__} has "
            f"no kernels; it has {listed}. Install a build of PyTorch with kernels for it, or set "
            "CUDA_VISIBLE_DEVICES= to compute on the CPU"
        )


def out_of_memory(error: RuntimeError) -> bool:
    """Say whether an error means that a GPU's memory has run out: cuDNN has other words for it, where none of its
    algorithms finds room to work in."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "unable to find an engine" in str(error)


def clear_memory() -> None:
    """Give back what a GPU holds of tensors and CUDA graphs that nobody needs any more; nothing on a CPU."""
    import torch

    if torch.cuda.is_available():
        gc.collect()  # cycles hold tensors
        torch.cuda.empty_cache()


def free_memory() -> int:
    """Return how many bytes of a GPU this process may still take; of one that jobs share, no more than its share."""
    import torch

    clear_memory()
    free, total = torch.cuda.mem_get_info()
    return min(free, int(total * torch.cuda.get_per_process_memory_fraction()))


def device_name(device: "torch.device") -> str:
    """Return what a device is, for people: the name of a GPU, or of a CPU with its number of threads."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")  # Linux; platform.processor() knows it elsewhere alone
    names = re.findall(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.exists() else []
    name = names[0] if names else platform.processor() or platform.machine()
    threads = f"{(count := torch.get_num_threads())} thread{'s' if count > 1 else ''}"
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}, {threads}"
