import http.server
import os
import shutil
import threading
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # test processes side by side share the cores; before PyTorch is imported
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from filelock import FileLock
from hypothesis import settings

from hiddencost import catalog, contents
from hiddencost.datasets.prepared import PreparedReport
from hiddencost.fetch import fetch_all
from hiddencost.files import read_json, write_json
from hiddencost.sources import SourceFile

ROOT = Path(__file__).parents[1]
# a fuzz is the same each time and takes a second or two; pytest --hypothesis-profile=long looks further
settings.register_profile("short", derandomize=True, max_examples=100, deadline=None, database=None)
settings.register_profile("long", max_examples=20_000, deadline=None)
settings.load_profile("short")


def copy_project(folder):
    """Copy what Snakemake needs of this checkout into a folder."""
    for name in ("Snakefile", "config.yaml", "workflow", "studies", "profiles", "data", "src", "envs", "bench"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)


@pytest.fixture(scope="session")
def downloads(request):
    """A folder that outlives the test run: the real weights and photos are fetched once."""
    return Path(request.config.cache.mkdir("hiddencost"))


@pytest.fixture
def records(tmp_path, monkeypatch):
    """Keep what is known of a user's files there, and not in this checkout."""
    monkeypatch.setattr(contents, "RECORDS", tmp_path / "contents")


def report_prepared(classes=(), failed=None, sha256=None):
    """Return the report of a prepared dataset, of whose images nothing is said."""
    counts = {"train": 0, "test": 0}
    return PreparedReport(
        dataset="one", size="32", failed=failed, classes=list(classes), counts=counts, sha256=sha256 or {}
    )


def source_files(files: dict[str, dict]) -> dict[str, SourceFile]:
    """Return files of a catalog entry, as it states them."""
    return {key: SourceFile.model_validate(file) for key, file in files.items()}


def fetched(folder: Path, name: str, files: dict[str, SourceFile]) -> Path:
    """Fetch a catalog entry's files into folder/name, as the workflow does, and return the report fetched.json."""
    report = fetch_all(name, files, folder / name, folder / "checksums.lock.json")
    assert report["failed"] is None
    write_json(folder / name / "fetched.json", report)
    return folder / name / "fetched.json"


@pytest.fixture(scope="session")
def mobilenetv2(downloads, tmp_path_factory):
    """The real MobileNetV2, imported: the folder of a backbone."""
    # PyTorch takes seconds, which the process that shares tests out does without
    from hiddencost.networks.checkpoint import import_checkpoint

    entry = catalog.checkpoint("mobilenetv2")
    folder = tmp_path_factory.mktemp("mobilenetv2")
    import_checkpoint("mobilenetv2", entry, fetched(downloads, "mobilenetv2", entry.files), folder)
    return folder


@pytest.fixture(scope="session")
def photos(downloads):
    """The foolbox wheel with its ImageNet photos."""
    report = read_json(fetched(downloads, "imagenet20", catalog.photos()["imagenet20"].files))
    return Path(report["files"]["photos"]["path"])


@pytest.fixture(scope="session")
def finished(tmp_path_factory, worker_id):
    """A copy of the project with stubs, its study run to the end: once for all test processes."""
    from stubbed_project import make_finished_project

    # the processes' own folders are side by side in one of the test run
    shared = tmp_path_factory.getbasetemp() if worker_id == "master" else tmp_path_factory.getbasetemp().parent
    project = shared / "finished"
    with FileLock(shared / "finished.lock"):
        if not (shared / "finished.made").exists():
            make_finished_project(project)
            (shared / "finished.made").touch()
    return project


@pytest.fixture
def project(finished, tmp_path):
    """The finished project, to edit."""
    copy = tmp_path / "project"
    shutil.copytree(finished, copy, symlinks=True)  # with the time stamps
    return copy


class Attack:
    """A pickle that makes a folder when it is read."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.fixture
def evil(tmp_path):
    """A path that must not come to be."""
    path = tmp_path / "evil"
    yield path
    assert not path.exists()


@pytest.fixture
def threads():
    """Two test processes share two cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def serve():
    """Serve over HTTP: serve({path: response}) gives a server with its `address`; `asked` has the paths that were
    asked, `ranges` their Range headers.

    A response is (status, headers, body); or a list of them, one a request, of which the last stays; or a function of
    the request's handler that answers by itself. A path of none of them is answered 404.
    """
    servers = []

    def start(responses, tls=None):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                server.asked.append(self.path)
                server.ranges.append(self.headers["Range"])
                response = responses.get(self.path, (404, {}, b""))
                if isinstance(response, list):
                    response = response.pop(0) if len(response) > 1 else response[0]
                if callable(response):
                    response(self)
                else:
                    self.answer(*response)

            def do_HEAD(self):
                status, headers, _ = responses.get(self.path, (404, {}, b""))
                self.answer(status, headers, b"")

            def answer(self, status, headers, body):
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.asked, server.ranges = [], []
        server.address = f"http://127.0.0.1:{server.server_port}"
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
            server.address = f"https://127.0.0.1:{server.server_port}"
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
