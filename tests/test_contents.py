"""Files are known by what they hold, and are read again only where size, times or inode have changed."""

import json
import os
import shutil

import pytest

from hiddencost import contents, files

OLD = 1_500_000_000  # s: files of another day


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder of two images of a day ago, as the record has them too, and a count of the files that are read."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(contents, "SETTLED", -(10**12))  # as if all had been written long ago
    for name, text in (("cat/0.png", b"one cat"), ("dog/0.png", b"one dog"), ("weights.pth", b"weights")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(text)
        os.utime(tmp_path / name, (OLD, OLD))
    read = []
    monkeypatch.setattr(contents, "sha256_file", lambda path: (read.append(path), files.sha256_file(path))[1])

    def digest(full=False):
        read.clear()
        found = contents.digest(tmp_path, ["cat/0.png", "dog/0.png", "weights.pth"], full=full)
        return found, sorted(os.path.relpath(path) for path in read)

    return digest


def swap(one, other):
    os.rename(one, "aside")
    os.rename(other, one)
    os.rename("aside", other)


def replace_by_an_older_file(way):
    with open("older.pth", "wb") as file:
        file.write(b"lighter")
    os.utime("older.pth", (OLD - 1000, OLD - 1000))
    way("older.pth", "weights.pth")


def edit_with_times_kept(name, content):
    with open(name, "r+b") as file:
        file.write(content)
    os.utime(name, (OLD, OLD))


CHANGES = {
    "replaced by an older file, mv": (lambda: replace_by_an_older_file(os.replace), ["weights.pth"]),
    "replaced by an older file, cp -p": (lambda: replace_by_an_older_file(shutil.copy2), ["weights.pth"]),
    "swapped between classes": (lambda: swap("cat/0.png", "dog/0.png"), ["cat/0.png", "dog/0.png"]),
    "class folders swapped": (lambda: swap("cat", "dog"), ["cat/0.png", "dog/0.png"]),
    "edited, size and time kept": (lambda: edit_with_times_kept("dog/0.png", b"two"), ["dog/0.png"]),
    "gone": (lambda: os.remove("dog/0.png"), []),
}


@pytest.mark.parametrize(("change", "read"), CHANGES.values(), ids=CHANGES)
def test_what_is_replaced_is_another_content(own, change, read):
    before, _ = own()
    change()
    after, seen = own()
    assert after != before
    assert seen == read
    assert own(full=True)[0] == after


SAME = {
    "nothing": (lambda: None, []),
    "touched": (lambda: os.utime("weights.pth"), ["weights.pth"]),
    "copied over with the same": (
        lambda: (shutil.copy("weights.pth", "copy"), os.replace("copy", "weights.pth")),
        ["weights.pth"],
    ),
    "other rights": (lambda: os.chmod("weights.pth", 0o600), ["weights.pth"]),
    "record gone": (lambda: shutil.rmtree("resources"), ["cat/0.png", "dog/0.png", "weights.pth"]),
}


@pytest.mark.parametrize(("change", "read"), SAME.values(), ids=SAME)
def test_content_decides_where_the_status_is_another(own, change, read):
    before, first = own()
    assert first == ["cat/0.png", "dog/0.png", "weights.pth"]
    change()
    assert own() == (before, read)
    assert own() == (before, [])
    assert own(full=True) == (before, first)


def test_a_disk_that_changes_bits_and_no_times_is_seen_by_a_full_check(own):
    before, _ = own()
    (record,) = contents.RECORDS.iterdir()
    edit_with_times_kept("weights.pth", b"Weights")
    known = json.loads(record.read_text())
    known["files"]["weights.pth"] = [*contents._status("weights.pth"), known["files"]["weights.pth"][4]]
    record.write_text(json.dumps(known))
    assert own() == (before, [])
    assert own(full=True)[0] != before
    assert own()[0] != before


@pytest.mark.parametrize("damage", [b"", b'{"root": "', b"[]", b'{"root": "x", "files": 3}', b"\xff", None])
def test_a_record_that_is_damaged_or_cannot_be_written_costs_time_alone(own, damage):
    before, all_of_them = own()
    (record,) = contents.RECORDS.iterdir()
    if damage is None:
        shutil.rmtree(contents.RECORDS)
        contents.RECORDS.write_text("a file in the place of a folder")
    else:
        record.write_bytes(damage)
    assert own() == (before, all_of_them)


def test_a_file_that_was_just_written_is_read_again(own, monkeypatch):
    """A second edit within a tick of the file system's clock leaves size and times as they were."""
    monkeypatch.setattr(contents, "SETTLED", 2 * 10**9)
    own()
    assert own()[1] == ["cat/0.png", "dog/0.png", "weights.pth"]


def test_what_cannot_be_read_is_a_content_too_and_nothing_is_waited_for(own, monkeypatch):
    before, _ = own()
    os.remove("dog/0.png")
    gone, _ = own()

    def fails(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(contents, "sha256_file", fails)
    os.utime("weights.pth")
    unreadable, _ = own()
    assert len({before, gone, unreadable}) == 3
    assert contents.hashed("weights.pth", [""]) == {"": "EACCES"}
    os.mkfifo("dog/0.png")
    assert contents.hashed("dog", ["0.png", ""]) == {"0.png": "no file", "": "no file"}
