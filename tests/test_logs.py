"""The logs of jobs: what a person reads in them."""

import subprocess
import sys

import pytest

JOB = """
import logging, sys, time
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm
from hiddencost import logs
logs.SECONDS = {seconds}
logs.log_to(sys.argv[1])
print("begun")
with tqdm(total=4, desc="0 of 2 runs done", unit=" images", mininterval=0) as bar, logging_redirect_tqdm():
    for image in range(4):
        bar.update()
        if image % 2:
            logging.info("run %d: accuracy 0.5", image)
        time.sleep(0.01)
for image in tqdm([1, 2], desc="another", mininterval=0, leave=False):
    pass
print("printed")
print()
raise ValueError("out of luck")
"""


def lines_of(tmp_path, seconds):
    log = tmp_path / "job.log"
    done = subprocess.run([sys.executable, "-c", JOB.format(seconds=seconds), log], capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")
    text = log.read_bytes().decode()
    assert "\r" not in text
    return text.split("\n")


@pytest.mark.parametrize("seconds", [0, 60])
def test_bars_and_what_comes_between_are_lines_of_their_own(tmp_path, seconds):
    lines = lines_of(tmp_path, seconds)
    assert lines[0] == "begun"
    told = [line for line in lines if line.endswith("accuracy 0.5")]
    assert [line[9:] for line in told] == ["run 1: accuracy 0.5", "run 3: accuracy 0.5"]
    assert all(len(line) == len("00:00:00 run 1: accuracy 0.5") for line in told)
    bars = [line for line in lines if line.startswith("0 of 2 runs done: ")]
    assert "| 4/4 [" in bars[-1]
    assert lines.index(bars[-1]) > lines.index(told[-1])
    assert lines[-2] == "ValueError: out of luck"
    assert lines[lines.index("printed") + 1] == ""
    assert lines.count("") == 2  # that one, and the end of the file
    assert len(bars) > 4 if seconds == 0 else len(bars) == 2  # the first and the last


SCALARS = """
import logging, os, sys
from pathlib import Path
from hiddencost import logs
os.environ[logs.TENSORBOARD] = sys.argv[2]
logs.log_to(sys.argv[1])
sys.modules["tensorboard"] = None  # as where it is not installed
log = logging.getLogger("hiddencost.runs")
log.info("2 runs to train", extra={"events": Path(sys.argv[3])})
log.debug("an epoch", extra={"ended": [("flm", 12, 1, [0.5], ())]})
log.info("1 of 2", extra={"finished": ("flm", 12, {"accuracy": 0.5})})
"""


@pytest.mark.parametrize("switch", ["true", ""])
def test_scalars_that_cannot_be_written_are_told_in_one_line(tmp_path, switch):
    log, events = tmp_path / "job.log", tmp_path / "events"
    subprocess.run([sys.executable, "-c", SCALARS, log, switch, events], check=True)
    lines = [line[9:] for line in log.read_text().splitlines()]
    missing = "import of tensorboard halted; None in sys.modules"
    told = f"--config tensorboard=true: {missing}: no events are written; expected it where jobs run"
    assert lines == ["2 runs to train", *([told] if switch else []), "1 of 2"]
    assert not events.exists()
