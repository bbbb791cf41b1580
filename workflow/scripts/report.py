import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from hiddencost.files import atomic
from hiddencost.logs import log_to

log_to(snakemake.log[0])
# Snakemake's own report, of the figures and tables; this very call holds the lock of the working directory
with TemporaryDirectory() as folder, atomic(snakemake.output[0]) as temporary:
    config = Path(folder, "config.json")
    config.write_text(json.dumps({key: value for key, value in snakemake.config.items() if key != "retry"}))
    snakefile = Path(snakemake.scriptdir).resolve().parents[1] / "Snakefile"
    command = [sys.executable, "-m", "snakemake", "figures", "--snakefile", snakefile, "--configfile", config]
    subprocess.run([*command, "--nolock", "--report", temporary], check=True, stdout=sys.stderr, stderr=sys.stderr)
