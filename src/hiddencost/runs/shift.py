"""Finished runs on corrupted test images: with the prompts, mappings and probes that the ledger holds, untrained."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from hiddencost.datasets import prepared
from hiddencost.datasets.corruptions import corrupt
from hiddencost.datasets.prepare import pixels
from hiddencost.datasets.prepared import Dataset
from hiddencost.files import atomic
from hiddencost.runs import ledger, packfile
from hiddencost.runs.features import compute_features
from hiddencost.runs.metrics import METRICS, predictions_of
from hiddencost.runs.pack import Asked, Runs
from hiddencost.runs.packfile import AXES, PackInputs, PackRequest
from hiddencost.runs.prompting import PromptingJob
from hiddencost.runs.shift_table import CLEAN, COLUMNS, SCORES
from hiddencost.study.recipes import recipe_of_run


@dataclass(frozen=True)
class ShiftInputs:
    """The files of the runs of a backbone on a dataset.

    Attributes:
        backbone: the folder of the network.
        images: the folder of the images to corrupt, by the size at which networks see them: prepared at that size, or
            as published, of images that are published as squares of one size.
        prompted, probed: the tables of packs, of all seeds.
        texts: of a CLIP, the file of its texts.
    """

    backbone: Path
    images: dict[str, Path]
    prompted: Sequence[Path]
    probed: Sequence[Path]
    texts: Path | None = None


@dataclass(frozen=True)
class Pack:
    """What a pack's table holds that has a result: the request, and the rows, a row a run."""

    request: PackRequest
    rows: pd.DataFrame

    @classmethod
    def read(cls, path: Path) -> "Pack":
        request, rows = packfile.stored_request(path), pd.read_parquet(path)
        assert request, f"{path} states its request"
        return cls(request, rows[rows["status"] == "ok"])

    @property
    def runs(self) -> Runs:
        """The distinct runs, by identity. Of the images that they were trained on the number is told alone."""
        return {
            row.run: Asked(row.method, list(range(row.n_train)), self._batch_size(row.shots))
            for row in self.rows.drop_duplicates("run").itertuples()
        }

    def _batch_size(self, shots: str) -> int:
        return recipe_of_run(self.request.recipe, shots)["batch_size"]

    def learned(self) -> Iterator[tuple[str, dict[str, Tensor]]]:
        return ((run, ledger.read(self.request.ledger, run)[0]) for run in self.runs)


def write(
    inputs: ShiftInputs,
    corruptions: Sequence[str],
    severities: Sequence[int],
    output: Path,
    plans: str | Path,
    device: torch.device,
    memory: int,
) -> None:
    """Score the finished runs of a backbone on a dataset on corrupted test images.

    All networks, methods and seeds see the same corrupted images (see `corruptions.corrupt`), so that what they lose
    is paired. Images that are published as squares of one size are corrupted as published, by the parameters for that
    size, and then resized as the clean ones were; others at the size at which a network sees them.

    Args:
        inputs: the files.
        corruptions, severities: which; the scores of severity 0, the clean images, are those of the packs.
        output: the table, parquet: `COLUMNS`, a row a run, corruption and severity.
        plans: see `fit_to_device`.
        device: to compute on.
        memory: of the job, in bytes, see `fit_to_device`.
    """
    rows: list[dict] = []
    packs = ([Pack.read(path) for path in paths] for paths in (inputs.prompted, inputs.probed))
    prompted, probed = ([pack for pack in each if not pack.rows.empty] for each in packs)
    for pack in (*prompted, *probed):
        rows += [row | {"corruption": CLEAN, "severity": 0} for row in pack.rows.to_dict("records")]
    for corruption in tqdm(corruptions if rows else (), unit=" corruptions", mininterval=10):
        for size in dict.fromkeys(pack.request.size for pack in (*prompted, *probed)):
            dataset, stacked = _corrupted(inputs.images[size], corruption, severities, size, output.parent)
            of_size = [[one for one in each if one.request.size == size] for each in (prompted, probed)]
            labels = torch.tensor(dataset.test_labels)
            for pack, run, logits in _answers(inputs, stacked, *of_size, plans=plans, device=device, memory=memory):
                of_run = pack.rows[pack.rows["run"] == run][[*AXES, "run"]].to_dict("records")
                for severity, part in zip(severities, logits.cpu().split(len(labels)), strict=True):
                    scores = _scores(part, labels, pack.request.recipe["test_batch_size"])
                    rows += [row | {"corruption": corruption, "severity": severity} | scores for row in of_run]
    table = pd.DataFrame(rows).reindex(columns=COLUMNS).astype(dict.fromkeys(SCORES, float))
    with atomic(output) as temporary:
        table.to_parquet(temporary, index=False)


def _answers(
    inputs: ShiftInputs,
    dataset: Dataset,
    prompted: Sequence[Pack],
    probed: Sequence[Pack],
    *,
    plans: str | Path,
    device: torch.device,
    memory: int,
) -> Iterator[tuple[Pack, str, Tensor]]:
    """Yield of each run of packs the logits of a dataset's test images over the target classes, [N, K]."""
    files = PackInputs(
        inputs.backbone, verification=Path(), dataset=Path(), split=Path()
    )  # the network alone is read
    for pack in prompted:
        job = PromptingJob(files, pack.request, plans, device, memory, inputs.texts)
        yield from ((pack, run, logits) for run, logits in job.predict(dataset, pack.runs, pack.learned()))
    if probed:
        features = compute_features(inputs.backbone, {"test": dataset.test_images}, device)["test"]
        yield from (
            (pack, run, functional.linear(features, **head)) for pack in probed for run, head in pack.learned()
        )


def _corrupted(
    folder: Path, corruption: str, severities: Sequence[int], size: str, scratch: Path
) -> tuple[Dataset, Dataset]:
    """Return a dataset, and it with all severities of a corruption for test images, one behind the other, as networks
    see them at a size, in a file without a name in the folder `scratch`."""
    dataset = prepared.load(folder)
    images = dataset.test_images
    shape = pixels(Image.fromarray(images[0].transpose(1, 2, 0)), size).shape
    with TemporaryFile(dir=scratch) as file:
        stacked = np.memmap(file, np.uint8, "w+", shape=(len(severities) * len(images), *shape))
        for place, severity in enumerate(severities):
            for index, image in enumerate(images):
                (corrupted,) = corrupt(image[None], corruption, severity, index)
                as_seen = pixels(Image.fromarray(corrupted.transpose(1, 2, 0)), size)
                stacked[place * len(images) + index] = as_seen
    return dataset, dataset._replace(test_images=stacked)


def _scores(logits: Tensor, labels: Tensor, batch_size: int) -> dict[str, float | None]:
    if not logits.isfinite().all():
        return dict.fromkeys(SCORES)
    predictions = predictions_of(logits, labels, batch_size)
    return {name: METRICS[name].compute(predictions) for name in SCORES}
