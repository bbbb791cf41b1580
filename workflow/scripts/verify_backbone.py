import json
from pathlib import Path

import torch

from hiddencost.files import read_json, write_json
from hiddencost.logs import log_to
from hiddencost.verify import failed, verify

log_to(snakemake.log[0])
torch.set_num_threads(snakemake.threads)
settings = json.loads(snakemake.params.settings)
folder = Path(snakemake.input.backbone[0]).parent
photos = read_json(snakemake.input.photos) if snakemake.input.photos else {"failed": None, "files": {}}
if photos["failed"]:
    result = failed(folder, f"there are no photos to verify it on: {photos['failed']}")
else:
    path = next((file["path"] for file in photos["files"].values()), None)
    result = verify(folder, path, settings["photos"], settings)
write_json(snakemake.output[0], result)
