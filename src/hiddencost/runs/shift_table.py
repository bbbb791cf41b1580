"""The columns of what finished runs say of corrupted images, for modules that do without PyTorch; see `shift`."""

from hiddencost.files import canonical, sha256_text
from hiddencost.runs.metrics import METRICS, digests
from hiddencost.runs.packfile import AXES

CLEAN = "none"  # the corruption of severity 0
SCORES = [name for name, metric in METRICS.items() if metric.paired]
COLUMNS = [*AXES, "run", "corruption", "severity", *SCORES]
GROWTH = "shift_"  # before a metric: what shift changes of it, see `results.shift.growth`


def digest() -> str:
    """Return the digest of the code of SCORES."""
    of_metrics = digests()
    return sha256_text(canonical({name: of_metrics[name] for name in SCORES}))
