"""Inputs and settings of the rules in datasets.smk: from a dataset's files to arrays and splits."""

import os
from functools import cache

from hiddencost.catalog.entries import DatasetLayout
from hiddencost.datasets.readers.registry import READERS
from hiddencost.digest import code_digest
from hiddencost.jobs import downloads, places, values
from hiddencost.jobs.call import Call
from hiddencost.messages import StudyError, one_line

PREPARED_KEYS = (*DatasetLayout.model_fields, "files", "reader_code")


def fetch_dataset(call: Call, dataset: str) -> dict:
    """Return the settings of a dataset's download."""
    return downloads.settings(call, "datasets", dataset, call.datasets[dataset])


def fetched_dataset(call: Call, dataset: str) -> list[str]:
    """Return the report of a dataset's download, none of the user's own images."""
    return [places.fetched(call, "datasets", dataset)] if call.datasets[dataset].files else []


def prepare_dataset(call: Call, dataset: str) -> dict:
    """Return what a prepared dataset depends on of its entry; `reader_code`: the digest of the code of its reader.

    Where images of the user's own lie is none of it (see `own_path`): those that move are the same.
    """
    entry = call.datasets[dataset]
    settings = entry.layout().model_dump()
    if not entry.files:
        del settings["options"]["path"]
    reader_code = code_digest(READERS[entry.reader].file)
    return settings | {"files": downloads.checksums(call, entry), "reader_code": reader_code}


def own_path(call: Call, dataset: str) -> str:
    """Return where images of the user's own lie, as the text of a param that adds it to the `options`; no text of
    others."""
    entry = call.datasets[dataset]
    return values.ABSENT if entry.files else values.text("options.path", entry.options["path"])


@cache  # each pack asks, and all backbones are looked at
def sizes_of(call: Call, dataset: str) -> list[str]:
    """Return all sizes at which the study has a dataset prepared, that of its splits first."""
    texts_last = sorted(call.study.backbones, key=lambda backbone: call.study.family(backbone).has_texts)
    sizes = [size for each in texts_last for size in call.study.sizes(dataset, each).values()]
    return list(dict.fromkeys(sizes + [size for name, size in call.study.calibrations() if name == dataset]))


def first_prepared(call: Call, dataset: str) -> str:
    """Return the folder of a dataset at the size of its splits, which are drawn by its labels."""
    return places.prepared_folder(call, dataset, sizes_of(call, dataset)[0])


def all_prepared(call: Call) -> list[str]:
    """Return the folders of all images of the study, those among them that networks are trained on upstream, or
    compressed by."""
    targets = [
        places.prepared_folder(call, one.name, size)
        for one in call.study.datasets
        for size in sizes_of(call, one.name)
    ]
    upstream = [
        places.prepared_folder(call, one.dataset, one.image_size) for one in call.study.upstream if one.dataset
    ]
    return list(
        dict.fromkeys(
            targets + upstream + [places.prepared_folder(call, *each) for each in call.study.calibrations()]
        )
    )


def prepared_here(call: Call) -> list[str]:
    """Return the datasets that can be prepared: those whose images are not the user's own, or are there.

    Where they are gone, the arrays that were prepared of them are used as they are. Raises StudyError where there are
    none. A job is not asked: it may run where the user's folder is not mounted, and was planned where it is.
    """
    if call.is_job:
        return list(call.datasets)
    for name, path in call.images_gone.items():
        files = [file for size in sizes_of(call, name) for file in places.prepared(call, name, size)]
        if not all(map(os.path.exists, files)):
            raise StudyError(
                one_line(f"{call.file}: dataset {name}: there is no {path}, and not all was prepared of it")
            )
    return [name for name in call.datasets if name not in call.images_gone]


def images_to_split(call: Call, dataset: str) -> list[str]:
    """Return the files of a dataset that its splits are drawn from."""
    return places.prepared(call, dataset, sizes_of(call, dataset)[0])
