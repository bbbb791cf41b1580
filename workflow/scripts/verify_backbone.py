from pathlib import Path

import torch

from hiddencost.catalog.entries import PhotosLayout
from hiddencost.compression.gate import failed, verify
from hiddencost.compression.photos import imagenet_photos
from hiddencost.files import read_json
from hiddencost.jobs import values
from hiddencost.logs import log_to

log_to(snakemake.log[0])
torch.set_num_threads(snakemake.threads)
settings = values.read(snakemake.params)
folder = Path(snakemake.input.backbone[0]).parent
dense = Path(snakemake.input.dense[0]).parent if snakemake.input.dense else None
photos = read_json(snakemake.input.photos)
if photos["failed"]:
    report = failed(folder, f"there are no photos to verify it on: {photos['failed']}")
else:
    (file,) = photos["files"].values()
    layout = PhotosLayout(**settings["photos"])
    recognise = imagenet_photos(file["path"], layout, settings["photos_top1"], dense)
    report = verify(folder, settings, recognise)
report.write(snakemake.output[0])
