"""What machine this is, and whether the tests marked cuda pass on it."""

import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

from stages import PATIENCE, ROOT, Stage, bounded

PACKAGES = [
    *("torch", "torchvision", "timm", "triton", "torchao", "pandas", "pyarrow", "pydantic", "snakemake"),
    *("open_clip_torch", "pytest"),
]
FETCHED = ROOT / "resources/checkpoints/mobilenetv2"  # by a quickstart that was run, or not there
CACHE = ROOT / ".pytest_cache/d/hiddencost/mobilenetv2"  # where the tests look for it


def run(stage: Stage) -> None:
    """Tell what is here."""
    import torch  # which takes seconds, and the tests' stage needs none

    told = {"device": "CPU", "cores": os.cpu_count(), "python": platform.python_version()}
    told |= {"packages": {name: _version(name) for name in PACKAGES}, "published weights": FETCHED.exists()}
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        told |= {"device": torch.cuda.get_device_name(), "capability": torch.cuda.get_device_capability()}
        told |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(), "nvidia_smi": _nvidia_smi()}
        told |= {"free_gb": free / 1e9, "total_gb": total / 1e9}
    stage.tell(**told)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _nvidia_smi() -> str:
    if not (command := shutil.which("nvidia-smi")):
        return "no nvidia-smi"
    query = [command, "--query-gpu=driver_version,power.limit,clocks.max.sm", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, timeout=20)
    return (done.stdout + done.stderr).strip()


def run_tests(stage: Stage) -> None:
    """The tests marked cuda. Raises FileNotFoundError where there is none."""
    if FETCHED.exists() and not CACHE.exists():
        shutil.copytree(FETCHED, CACHE)
    files = [str(path) for path in sorted((ROOT / "tests").glob("*.py")) if "mark.cuda" in path.read_text()]
    if not files:
        raise FileNotFoundError("no test is marked cuda")
    command = [sys.executable, "-m", "pytest", "-m", "cuda", "-rfEs", "--tb=short", "--durations=10", *files]
    log = stage.out / "pytest.txt"
    code = bounded(command, stage.left() - PATIENCE, log)
    lines = log.read_text().splitlines()
    wrong = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    stage.tell(code=code, last=lines[-1] if lines else "", wrong=wrong, passed=code == 0)
