import http.server
import shutil
import threading
from pathlib import Path

import pytest
import torch

from hiddencost import catalog
from hiddencost.checkpoint import import_checkpoint
from hiddencost.fetch import fetch
from hiddencost.files import sha256_file

ROOT = Path(__file__).parents[1]


def copy_project(folder):
    """Copy what Snakemake needs of this checkout into a folder."""
    for name in ("Snakefile", "config.yaml", "workflow", "studies", "profiles", "data", "src", "envs"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)


@pytest.fixture(scope="session")
def downloads(request):
    """A folder that outlives the test run: the real weights and photos are fetched once."""
    return Path(request.config.cache.mkdir("hiddencost"))


def fetched(folder: Path, entry: dict) -> Path:
    path = folder / entry["file"]
    if not path.exists() or sha256_file(path) != entry["sha256"]:
        fetch(entry, path)
    return path


@pytest.fixture(scope="session")
def mobilenetv2(downloads, tmp_path_factory):
    """The real MobileNetV2, imported: the folder of a backbone."""
    entry = catalog.load("checkpoints")["mobilenetv2"]
    folder = tmp_path_factory.mktemp("mobilenetv2")
    import_checkpoint("mobilenetv2", entry, fetched(downloads, entry), folder)
    return folder


@pytest.fixture(scope="session")
def photos(downloads):
    """The foolbox wheel with its ImageNet photos."""
    return fetched(downloads, catalog.load("photos")["imagenet20"])


@pytest.fixture
def threads():
    """Two test processes share two cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def serve():
    """Serve responses over HTTP: serve({path: (status, headers, body)}) returns the address; requests are counted
    in its `asked`."""
    servers = []

    def start(responses):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                server.asked.append(self.path)
                status, headers, body = responses[self.path]
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.asked = []
        server.address = f"http://127.0.0.1:{server.server_port}"
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
