import logging
from pathlib import Path

from hiddencost import catalog
from hiddencost.fetch import fetch_all
from hiddencost.files import download_digest, write_json
from hiddencost.jobs import values
from hiddencost.logs import log_to

log_to(snakemake.log[0])
kind = {"fetch_checkpoint": "checkpoints", "fetch_dataset": "datasets", "fetch_photos": "photos"}[snakemake.rule]
folder = Path(snakemake.output[0]).parent
name = folder.name
entry = catalog.checkpoint(name) if kind == "checkpoints" else catalog.load(kind)[name]
settings = values.read(snakemake.params)
own = {key: file["own"] for key, file in settings["files"].items()}
files = {
    key: file | ({"sources": [{"path": path} for path in own[key]]} if own[key] else {})
    for key, file in entry["files"].items()
}
offline, root = bool(snakemake.config.get("offline")), Path(snakemake.scriptdir).resolve().parents[1]
report = fetch_all(name, files, folder, Path("checksums.lock.json"), offline, root)
answers = {"asked": download_digest(files, offline), "attempt": settings["attempt"]}
write_json(snakemake.output[0], report | answers)
if report["failed"]:
    logging.error("%s %s: not fetched: %s", kind, name, report["failed"])
else:
    came = (f"{Path(file['path']).name} from {file['source']}" for file in report["files"].values())
    logging.info("%s %s: fetched %s", kind, name, "; ".join(came))
