import logging
from pathlib import Path

from hiddencost import catalog
from hiddencost.fetch import fetch_all
from hiddencost.files import write_json
from hiddencost.jobs import values
from hiddencost.logs import log_to
from hiddencost.sources import LOCK, SourceFile, download_digest

log_to(snakemake.log[0])
folder = Path(snakemake.output[0]).parent
name, kind = folder.name, {"raw": "datasets"}.get(folder.parent.name, folder.parent.name)
entries = {"checkpoints": catalog.checkpoint, "datasets": catalog.datasets().get, "photos": catalog.photos().get}
settings = values.read(snakemake.params)
# of the user's own as the call has found them, as they are of no catalog, or others than its entry's
known, own = SourceFile.model_fields, snakemake.config["own_paths"].get(snakemake.output[0], {})
files = {
    key: SourceFile(**{field: file[field] for field in known.keys() & file.keys()}).from_paths(paths)
    if (paths := own.get(key, file["own"]))
    else entries[kind](name).files[key]
    for key, file in settings["files"].items()
}
offline, root = bool(snakemake.config.get("offline")), Path(snakemake.scriptdir).resolve().parents[1]
report = fetch_all(name, files, folder, Path(LOCK), offline, root)
answers = {"asked": download_digest(name, files, offline), "attempt": settings["attempt"]}
write_json(snakemake.output[0], report | answers)
if report["failed"]:
    logging.error("%s %s: not fetched: %s", kind, name, report["failed"])
else:
    came = (f"{Path(file['path']).name} from {file['source']}" for file in report["files"].values())
    logging.info("%s %s: fetched %s", kind, name, "; ".join(came))
