import logging
from pathlib import Path

from hiddencost import catalog
from hiddencost.fetch import fetch_all
from hiddencost.files import write_json
from hiddencost.jobs import values
from hiddencost.logs import log_to
from hiddencost.sources import LOCK, download_digest

log_to(snakemake.log[0])
kind = {"fetch_checkpoint": "checkpoints", "fetch_dataset": "datasets", "fetch_photos": "photos"}[snakemake.rule]
folder = Path(snakemake.output[0]).parent
name = folder.name
entries = {"checkpoints": catalog.checkpoint, "datasets": catalog.datasets().get, "photos": catalog.photos().get}
settings = values.read(snakemake.params)
own = {key: file["own"] for key, file in settings["files"].items()}
files = {key: file.from_paths(own[key]) if own[key] else file for key, file in entries[kind](name).files.items()}
offline, root = bool(snakemake.config.get("offline")), Path(snakemake.scriptdir).resolve().parents[1]
report = fetch_all(name, files, folder, Path(LOCK), offline, root)
answers = {"asked": download_digest(name, files, offline), "attempt": settings["attempt"]}
write_json(snakemake.output[0], report | answers)
if report["failed"]:
    logging.error("%s %s: not fetched: %s", kind, name, report["failed"])
else:
    came = (f"{Path(file['path']).name} from {file['source']}" for file in report["files"].values())
    logging.info("%s %s: fetched %s", kind, name, "; ".join(came))
