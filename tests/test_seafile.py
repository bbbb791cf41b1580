"""Files of a folder that is shared by Seafile: a server that answers as seahub's public interface does."""

import json
from urllib.parse import parse_qs, urlsplit

import pytest
from conftest import source_files

from hiddencost import catalog, fetch, seafile
from hiddencost.fetch import fetch_all
from hiddencost.sources import Source

TOKEN = "91de9650cfb54b77b7d1"
LISTING = f"/api/v2.1/share-links/{TOKEN}/dirents/?path=%2F"
BODY = b"weights of RigL" * 100
FILES = {
    "/rigl_erk5x_80.pth": BODY,
    "/rigl_erk5x_80_noLS.pth": b"x",
    "/old/rigl_erk1x_90.pth": BODY,
    "/gmp 80.pth": BODY,
}


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(fetch, "BACKOFF", 0.01)


def listing(path):
    """What ShareLinkDirents answers (seahub, api2/endpoints)."""
    depth = path.rstrip("/").count("/") + 1
    names = {
        file.split("/")[depth]: file.count("/") > depth for file in FILES if file.startswith(path.rstrip("/") + "/")
    }
    entries = []
    for name, is_dir in names.items():
        of_kind = {True: ("folder_name", "folder_path", "/"), False: ("file_name", "file_path", "")}[is_dir]
        where = {of_kind[0]: name, of_kind[1]: f"{path.rstrip('/')}/{name}{of_kind[2]}"}
        entries.append({"size": 1, "last_modified": "2021-11-28T10:00:00+01:00", "is_dir": is_dir} | where)
    return json.dumps({"dirent_list": entries}).encode()


class Responses(dict):
    """The answers of a Seafile, by address."""

    def get(self, address, default=None):
        if address in self:
            return self[address]
        parts, asked = urlsplit(address), {}
        for key, values in parse_qs(parts.query).items():
            (asked[key],) = values
        if parts.path == f"/api/v2.1/share-links/{TOKEN}/dirents/":
            body = listing(asked["path"])
            return 200, {"Content-Type": "application/json", "Content-Length": len(body)}, body
        if parts.path == f"/d/{TOKEN}/files/" and asked["dl"] == "1" and asked["p"] in FILES:
            return 302, {"Location": f"/seafhttp/files/one-time{asked['p'].replace(' ', '%20')}"}, b""
        name = parts.path.removeprefix("/seafhttp/files/one-time").replace("%20", " ")
        if name in FILES:
            return 200, {"Content-Length": len(FILES[name]), "Content-Type": "application/octet-stream"}, FILES[name]
        return default


@pytest.fixture
def get(serve, tmp_path):
    def get(pattern, **answers):
        server = serve(Responses(answers))
        source = {"seafile": f"{server.address}/d/{TOKEN}", "file": pattern}
        files = source_files({"weights": {"name": "net.ckpt", "sources": [source]}})
        return server, fetch_all("net", files, tmp_path / "x", tmp_path / "lock.json")

    return get


@pytest.mark.parametrize("pattern", ["rigl_erk5x_80.*", "rigl_erk1x_9*", "gmp 80.pth"])
def test_the_one_file_of_such_a_name_is_fetched(pattern, get, tmp_path):
    server, report = get(pattern)
    assert report["failed"] is None
    assert report["files"]["weights"]["source"] == f"{server.address}/d/{TOKEN}, {pattern}"
    assert (tmp_path / "x/net.ckpt").read_bytes() == BODY
    assert [path.name for path in (tmp_path / "x").iterdir() if not path.name.startswith(".")] == ["net.ckpt"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (
            "rigl_erk5x*",
            "2 files are called rigl_erk5x*, expected 1; found /rigl_erk5x_80.pth, /rigl_erk5x_80_noLS.pth",
        ),
        (
            "str_80.pth",
            "0 files are called str_80.pth, expected 1; found /rigl_erk5x_80.pth, /rigl_erk5x_80_noLS.pth, ",
        ),
    ],
)
def test_no_file_and_two_of_such_a_name_are_told(pattern, message, get):
    failed = get(pattern)[1]["failed"]
    assert message in failed
    assert "\n" not in failed


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (404, b'{"error_msg": "Share link not found."}', "404"),
        (403, b'{"error_msg": "Permission denied."}', "403"),
        (200, b"<html>", "an html page instead of the file"),
        (200, b"{", "gives no listing of a folder shared by Seafile"),
        (200, b"[]", "gives no listing of a folder shared by Seafile"),
        (200, b'{"dirent_list": [5]}', "gives no listing of a folder shared by Seafile"),
        (200, b'{"dirent_list": [{"is_dir": 0}]}', "gives no listing of a folder shared by Seafile"),
    ],
)
def test_what_is_no_listing_is_told(status, body, message, get):
    headers = {"Content-Type": "text/html" if b"<" in body else "application/json", "Content-Length": len(body)}
    failed = get("a*", **{LISTING: (status, headers, body)})[1]["failed"]
    assert message in failed
    assert "\n" not in failed


def test_folders_that_hold_themselves_end(get, monkeypatch):
    monkeypatch.setattr(seafile, "FOLDERS", 5)
    entry = {"is_dir": True, "folder_path": "/"}
    body = json.dumps({"dirent_list": [entry]}).encode()
    answer = (200, {"Content-Length": len(body)}, body)
    server, report = get("a*", **{LISTING: answer})
    assert "has more than 5 folders, in which a* is looked for" in report["failed"]
    assert len(server.asked) == 5


def test_a_folder_past_those_that_are_listed_might_have_the_name_twice(get, monkeypatch):
    monkeypatch.setattr(seafile, "FOLDERS", 1)
    assert "has more than 1 folders" in get("rigl_erk5x_80.pth")[1]["failed"]
    monkeypatch.setattr(seafile, "FOLDERS", 2)
    assert get("rigl_erk5x_80.pth")[1]["failed"] is None


def test_a_listing_without_end_is_cut(get, monkeypatch):
    monkeypatch.setattr(seafile, "LISTING", 100)
    body = listing("/")
    failed = get("gmp 80.pth", **{LISTING: (200, {"Content-Length": len(body)}, body)})[1]["failed"]
    assert "more than the 100 bytes expected" in failed


def test_other_bytes_of_the_same_weights_are_not_mixed(serve, tmp_path):
    """Where the folder was first, it stays: an archive of another address comes too late (docs/networks.md)."""
    answers = Responses()
    server = serve(answers)
    archive = {"url": f"{server.address}/s80erk5x.tar.gz"}
    shared = {"seafile": f"{server.address}/d/{TOKEN}", "file": "rigl_erk5x_80.*"}
    files = source_files({"weights": {"name": "net.ckpt", "sources": [archive, shared]}})
    for _ in range(2):
        report = fetch_all("net", files, tmp_path / "x", tmp_path / "lock.json")
        assert report["files"]["weights"]["source"] == f"{server.address}/d/{TOKEN}, rigl_erk5x_80.*"
        answers["/s80erk5x.tar.gz"] = (200, {"Content-Length": 7}, b"archive")
        (tmp_path / "x/net.ckpt").unlink()
    (tmp_path / "lock.json").unlink()
    report = fetch_all("net", files, tmp_path / "x", tmp_path / "lock.json")
    assert report["files"]["weights"]["source"] == archive["url"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"seafile": f"https://seafile.ist.ac.at/d/{TOKEN}"}, "hf or seafile, and file, go together"),
        ({"seafile": f"https://seafile.ist.ac.at/f/{TOKEN}", "file": "a"}, "should match pattern"),
        ({"url": "https://a", "file": "a"}, "hf or seafile, and file, go together"),
    ],
)
def test_a_source_that_is_no_shared_folder_is_refused(source, message):
    with pytest.raises(ValueError, match=message):
        Source.model_validate(source)


def test_rigls_networks_are_at_ist_where_googles_archives_are_not():
    for level in (80, 90, 95):
        *archives, shared = catalog.checkpoint(f"resnet50-rigl{level}").files["weights"].sources
        assert [source.url.rpartition("/")[2] for source in archives] == [f"s{level}erk5x.tar.gz"] * 2
        assert (shared.seafile, shared.file) == (f"https://seafile.ist.ac.at/d/{TOKEN}", f"rigl_erk5x_{level}.*")
