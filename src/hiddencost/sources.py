"""What is downloaded: a file, how to know it, and where it is published."""

from pydantic import Field, model_validator

from hiddencost.files import canonical, sha256_text
from hiddencost.messages import Record

KINDS = {"url": "", "path": "", "pypi": "PyPI package ", "npm": "npm package ", "hf": "Hugging Face "}


class Source(Record, strict=True):
    """A place where a file is: one of `url`, `path`, `pypi`, `npm` and `hf`."""

    url: str | None = None
    path: str | None = Field(None, description="absolute, or relative to the project's folder")
    pypi: str | None = Field(None, description="NAME==VERSION")
    npm: str | None = Field(None, description="NAME@VERSION")
    hf: str | None = Field(None, description="OWNER/REPOSITORY of Hugging Face")
    member: str | None = Field(None, description="of a package: the file in it; without it the package's own file")
    file: str | None = Field(None, description="of a repository of Hugging Face: the file in it")
    revision: str | None = Field(None, description="of a repository of Hugging Face; without it the newest")

    @model_validator(mode="after")
    def _one_place(self) -> "Source":
        if len(given := [kind for kind in KINDS if getattr(self, kind) is not None]) != 1:
            raise ValueError(f"expected one of {', '.join(KINDS)}, found {', '.join(given) or 'none'}")
        if (self.hf is None) != (self.file is None):
            raise ValueError("hf and file go together")
        return self

    def __str__(self) -> str:
        (kind,) = (kind for kind in KINDS if getattr(self, kind) is not None)
        within = self.member or self.file
        return f"{KINDS[kind]}{getattr(self, kind)}" + (f", {within}" if within else "")


class SourceFile(Record, strict=True):
    """A file that is published: its name here, how to know it, and where it is, in the order of trying.

    All sources must give the same bytes. Without a sha256 or md5, the first download fixes what they are.
    """

    name: str
    size: int | None = Field(None, description="bytes")
    sha256: str | None = Field(None, description="hexadecimal")
    sha256_prefix: str | None = Field(None, description="hexadecimal, as PyTorch has it in names of files")
    md5: str | None = Field(None, description="hexadecimal")
    sources: list[Source] = Field([], description="in the order of trying")

    @property
    def user_paths(self) -> list[str]:
        """The paths among the sources: files of this machine."""
        return [source.path for source in self.sources if source.path is not None]

    def from_paths(self, paths: list[str]) -> "SourceFile":
        """Return the file with these paths as its sources."""
        return self.model_copy(update={"sources": [Source(path=path) for path in paths]})

    def expected(self) -> dict:
        """Return how the file is known: its name, size and checksums, as far as they are stated."""
        return self.model_dump(exclude={"sources"}, exclude_none=True)


def download_digest(files: dict[str, SourceFile], offline: bool) -> str:
    """Return the SHA-256 of what a download is to fetch, as its report (fetched.json) keeps it under `asked`: files
    with their sources, and whether from this machine alone."""
    stated = {key: file.model_dump(exclude_none=True, exclude_defaults=True) for key, file in files.items()}
    return sha256_text(canonical([stated, offline]))
