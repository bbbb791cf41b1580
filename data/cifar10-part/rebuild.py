"""Rebuild train.bin and test.bin, byte for byte, from the official CIFAR-10 archive.

    python data/cifar10-part/rebuild.py            # downloads cifar-10-binary.tar.gz (170 MB)
    python data/cifar10-part/rebuild.py FOLDER     # FOLDER holds data_batch_1.bin and test_batch.bin

The first 25 images of each class of data_batch_1.bin are the training part, the first 50 of each class of
test_batch.bin the test part, in the order of the official files. Records are copied unchanged: one byte of
label, then 3 x 1024 bytes of red, green and blue.
"""

import hashlib
import sys
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from hiddencost.fetch import fetch_all

ARCHIVE = {
    "name": "cifar-10-binary.tar.gz",
    "md5": "c32a1d4ab5d03f1284b67883e8d87530",  # as published on the CIFAR-10 page
    "sources": [{"url": "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"}],
}
PARTS = {  # part: (official file, its md5, images a class)
    "train.bin": ("data_batch_1.bin", "5dd7e06a14cb22eb9f671a540d1b7c25", 25),
    "test.bin": ("test_batch.bin", "803d5f7f4d78ea53de84dbe85f74fb6d", 50),
}
RECORD = 1 + 3 * 32 * 32


def first_of_each_class(records: bytes, per_class: int) -> bytes:
    """Keep the first `per_class` records of each of the ten classes, in their order."""
    table = np.frombuffer(records, np.uint8).reshape(-1, RECORD)
    chosen = np.concatenate([np.flatnonzero(table[:, 0] == label)[:per_class] for label in range(10)])
    return table[np.sort(chosen)].tobytes()


def main(folder: Path | None) -> None:
    """Write the parts beside this file, from `folder` or from the downloaded archive."""
    if folder is None:
        with TemporaryDirectory() as temporary:
            to, lock = Path(temporary), Path(temporary, "checksums.lock.json")
            report = fetch_all("cifar10", {"archive": ARCHIVE}, to, lock)
            if report["failed"]:
                sys.exit(report["failed"])
            with tarfile.open(report["files"]["archive"]["path"]) as archive:
                archive.extractall(temporary, filter="data")
            return main(Path(temporary, "cifar-10-batches-bin"))
    for part, (name, md5, per_class) in PARTS.items():
        records = (folder / name).read_bytes()
        if (found := hashlib.md5(records).hexdigest()) != md5:
            sys.exit(f"{folder / name}: md5 is {found}, expected {md5}")
        kept = first_of_each_class(records, per_class)
        Path(__file__).with_name(part).write_bytes(kept)
        print(f"{part}: {len(kept) // RECORD} images, sha256 {hashlib.sha256(kept).hexdigest()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
