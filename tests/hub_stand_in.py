"""A stand-in of the Hugging Face Hub: repositories of models, by the HTTP requests that huggingface_hub makes
(`create_repo`, `create_commit`, `hf_hub_download`) and the answers that it, and huggingface.js, read.

What each answer holds is that of huggingface_hub 2.4 (hf_api.py, _commit_api.py, lfs.py, file_download.py,
utils/_http.py) and of huggingface.js (packages/hub/src/types/api/api-commit.ts); large files go by Git LFS, "basic"
transfer (git-lfs, docs/api/batch.md), to a storage of another origin, whose addresses are signed and take no token.
"""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import yaml

TOKEN, USER = "hf_stand_in", "ana"
TRACKED = re.compile(r".*\.(safetensors|bin|onnx|pt)")  # by Git LFS, in the .gitattributes of a new repository
NAME = r"(?P<repo>[\w.-]+/[\w.-]+)"


@dataclass
class Repository:
    """A repository: `commits` are the files by path, by their name; `branches` the names of commits."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes]) -> str:
        name = hashlib.sha1(repr((len(self.commits), sorted(files))).encode()).hexdigest()
        self.commits[name] = files
        self.branches["main"] = name
        return name

    def at(self, revision: str) -> str | None:
        """The name of a commit, of a branch or of itself."""
        return self.branches.get(revision, revision if revision in self.commits else None)


def oid(path: str, content: bytes) -> str:
    """What the Hub calls a file's content: its SHA-256 in Git LFS, else Git's name of the blob."""
    if TRACKED.fullmatch(path):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0%b" % (len(content), content)).hexdigest()


class Answer(Exception):
    """Ends a request with a status, and with what it holds: headers, and JSON or bytes."""

    def __init__(self, status: int, body: dict | bytes = b"", **headers: str):
        self.status, self.headers = status, {name.replace("_", "-"): value for name, value in headers.items()}
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()


class Hub:
    """The Hub and its storage, which answer at `endpoint` and `storage` until `stop`; `asked` has the requests."""

    def __init__(self):
        self.repositories: dict[str, Repository] = {}
        self.stored: dict[str, bytes] = {}  # by Git LFS, by their SHA-256
        self.asked: list[tuple[str, str]] = []
        self.servers = [self._serve(self.answer), self._serve(self.answer_as_storage)]
        self.endpoint, self.storage = (f"http://127.0.0.1:{server.server_port}" for server in self.servers)

    def _serve(self, answer):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def respond(self):
                length = int(self.headers.get("Content-Length") or 0)
                try:
                    answer(self.command, urlsplit(self.path), self.headers, self.rfile.read(length))
                except Answer as told:
                    self.send_response(told.status)
                    for name, value in {"Content-Length": str(len(told.body)), **told.headers}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    if self.command != "HEAD":
                        self.wfile.write(told.body)

            do_GET = do_HEAD = do_POST = do_PUT = respond

            def log_message(self, *arguments):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server

    def stop(self):
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def answer(self, command, url, headers, body):
        self.asked.append((command, url.path))
        known = headers["Authorization"] == f"Bearer {TOKEN}"
        routes = {
            ("POST", "/api/repos/create"): self.create,
            ("POST", "/api/validate-yaml"): self.validate,
            ("POST", rf"/api/models/{NAME}/preupload/(?P<revision>[^/]+)"): self.preupload,
            ("POST", rf"/api/models/{NAME}/commit/(?P<revision>[^/]+)"): self.commit,
            ("GET", rf"/api/models/{NAME}(/revision/(?P<revision>[^/]+))?"): self.info,
            ("POST", rf"/{NAME}\.git/info/lfs/objects/batch"): self.batch,
            ("POST", rf"/{NAME}\.git/info/lfs/verify"): self.verify,
            ("HEAD", rf"/{NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)"): self.resolve,
            ("GET", rf"/{NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)"): self.resolve,
        }
        for (method, pattern), route in routes.items():
            found = re.fullmatch(pattern, url.path)
            if method == command and found:
                parts = {name: unquote(part) for name, part in found.groupdict().items() if part}
                if command == "POST" and not known:
                    raise Answer(401, {"error": "Invalid username or password."})
                if "repo" in parts:
                    repository = self.repositories.get(parts["repo"])
                    if repository is None or (repository.private and not known):
                        # whether there is one is not told to who may not see it
                        message = {"error": "Repository not found"}
                        raise Answer(404 if known else 401, message, X_Error_Code="RepoNotFound")
                    parts["repository"] = repository
                route(body, **parts)
        raise Answer(404, {"error": "Sorry, we can't find the page you are looking for."})

    def create(self, body):
        asked = json.loads(body)
        name = f"{asked['organization'] or USER}/{asked['name']}"
        if not name.startswith(f"{USER}/"):
            message = "You don't have the rights to create a model under this namespace"
            raise Answer(403, {"error": message}, X_Error_Message=message)
        told = {"url": f"{self.endpoint}/{name}", "name": name}
        if name in self.repositories:
            raise Answer(409, told | {"error": "You already created this model repo"})
        self.repositories[name] = Repository(asked.get("visibility") == "private")
        self.repositories[name].commit({".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"})
        raise Answer(200, told)

    def validate(self, body):
        """Hold a card's metadata against hub-docs' modelcard.md, as far as a model of this project has it."""
        content = json.loads(body)["content"]
        found = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
        metadata = yaml.safe_load(found[1]) if found else {}
        errors = [f'"{key}" must be an array' for key in ("tags",) if not isinstance(metadata.get(key, []), list)]
        for model in metadata.get("model-index", []):
            errors += [] if model.get("name") else ['"model-index[0].name" is required']
            for result in model["results"]:
                wanted = [("task", "type"), ("dataset", "type"), ("dataset", "name")]
                errors += [f"{part}.{key} is required" for part, key in wanted if not result[part].get(key)]
                errors += ["metrics" for metric in result["metrics"] if not {"type", "value"} <= metric.keys()]
        warnings = [] if metadata else [{"message": "empty or missing yaml metadata in repo card"}]
        told = {"errors": [{"message": error} for error in errors], "warnings": warnings}
        raise Answer(400 if errors else 200, told)

    def _files(self, repository, revision):
        name = repository.at(revision)
        if name is None:
            raise Answer(404, {"error": f"Invalid rev id: {revision}"}, X_Error_Code="RevisionNotFound")
        return name, repository.commits[name]

    def preupload(self, body, repo, revision, repository):
        _, there = self._files(repository, revision)
        told = []
        for file in json.loads(body)["files"]:
            path = file["path"]
            assert len(base64.b64decode(file["sample"])) == min(512, file["size"])
            mode = "lfs" if TRACKED.fullmatch(path) else "regular"
            existing = {"oid": oid(path, there[path])} if path in there else {}
            told.append({"path": path, "uploadMode": mode, "shouldIgnore": False} | existing)
        raise Answer(200, {"files": told})

    def batch(self, body, repo, repository):
        asked = json.loads(body)
        assert asked["operation"] == "upload"
        assert asked["hash_algo"] == "sha256"
        assert "basic" in asked["transfers"]
        told = []
        for one in asked["objects"]:
            upload = {"href": f"{self.storage}/{one['oid']}?signature=abc"}
            actions = {"upload": upload, "verify": {"href": f"{self.endpoint}/{repo}.git/info/lfs/verify"}}
            told.append(one | ({} if one["oid"] in self.stored else {"actions": actions}))
        raise Answer(200, {"transfer": "basic", "objects": told})

    def verify(self, body, repo, repository):
        asked = json.loads(body)
        is_there = len(self.stored.get(asked["oid"], b"")) == asked["size"]
        raise Answer(200 if is_there else 404, {})

    def commit(self, body, repo, revision, repository):
        header, *operations = map(json.loads, body.splitlines())
        assert header["key"] == "header"
        assert header["value"]["summary"]
        _, there = self._files(repository, revision)
        files = dict(there)
        for operation in operations:
            value = operation["value"]
            if operation["key"] == "file":
                assert value["encoding"] == "base64"
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile" and value["oid"] in self.stored:
                files[value["path"]] = self.stored[value["oid"]]
            else:
                raise Answer(400, {"error": f"{operation['key']}: its content was not uploaded"})
        name = repository.commit(files)
        url = f"{self.endpoint}/{repo}/commit/{name}"
        raise Answer(200, {"success": True, "commitOid": name, "commitUrl": url, "hookOutput": ""})

    def info(self, body, repo, repository, revision="main"):
        name, files = self._files(repository, revision)
        siblings = [{"rfilename": path} for path in files]
        raise Answer(200, {"id": repo, "sha": name, "private": repository.private, "siblings": siblings})

    def resolve(self, body, repo, revision, path, repository):
        name, files = self._files(repository, revision)
        if path not in files:
            raise Answer(404, b"Entry not found", X_Error_Code="EntryNotFound", X_Repo_Commit=name)
        tag = oid(path, files[path])
        if not TRACKED.fullmatch(path):
            raise Answer(200, files[path], ETag=f'"{tag}"', X_Repo_Commit=name)
        linked = {"X_Linked_Etag": f'"{tag}"', "X_Linked_Size": str(len(files[path]))}
        raise Answer(302, Location=f"{self.storage}/{tag}?signature=abc", X_Repo_Commit=name, **linked)

    def answer_as_storage(self, command, url, headers, body):
        name = url.path.removeprefix("/")
        if headers["Authorization"] or url.query != "signature=abc":
            raise Answer(400, b"Only one auth mechanism allowed")
        if command == "PUT":
            if hashlib.sha256(body).hexdigest() != name:
                raise Answer(400, b"BadDigest")
            self.stored[name] = body
            raise Answer(200, ETag=f'"{name}"')
        if name not in self.stored:
            raise Answer(404)
        raise Answer(200, self.stored[name], ETag=f'"{name}"')
