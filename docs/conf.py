"""The site: README.md, docs/ and the pages that they link. `make docs` builds it; a broken link is an error."""

import json
import shutil
import sys
from importlib import metadata
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs"))
from schema_page import tables  # noqa: E402

project = author = html_title = "hiddencost"
release = metadata.version("hiddencost")
copyright = "the hiddencost contributors, MIT"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
# the source is the whole checkout, so that the links of its pages are the same on a code host and on the site
root_doc = "README"
include_patterns = ["*.md", "config/*.md", "docs/**.md", "docs/**.rst", "bench/**.md", "data/**.md"]
exclude_patterns = [".*", "build", "results", "resources", "tests", "**/wheels"]
html_theme = "furo"
html_theme_options = {"source_directory": "docs/"}
myst_heading_anchors = 3
default_role = "code"  # docstrings write `name`, as Markdown does
autodoc_member_order = "bysource"
napoleon_use_ivar = True  # fields of a named tuple stand once

FINDINGS = [str(page.relative_to(ROOT).with_suffix("")) for page in sorted(ROOT.glob("docs/findings/**/*.md"))]
CONTENTS = {
    "Start": ["docs/install", "docs/quickstart", "docs/studies", "docs/schema"],
    "Networks and data": ["docs/checkpoints", "docs/networks", "docs/datasets", "docs/upstream", "docs/clip"],
    "Run": ["docs/machines", "docs/snakemake", "docs/reruns", "docs/failures"],
    "Results": [*FINDINGS, "docs/results", "docs/tables", "docs/claims", "docs/analyses", "docs/use"],
    "Background": [
        "docs/method",
        "docs/limits",
        "bench/README",
        "bench/gpu/README",
        "bench/results/*",
        "data/*/README",
    ],
    "Develop": ["docs/extending", "CONTRIBUTING", "docs/api", "CHANGELOG", "config/*"],
}


def complete(app: Sphinx, page: str, source: list[str]) -> None:
    """Add to a page what a code host does not show: the contents of the site, and the study's schema."""
    if page == root_doc:
        for caption, pages in CONTENTS.items():
            source[0] += "\n```{toctree}\n:hidden:\n:glob:\n:caption: " + "\n".join([caption, "", *pages, "```\n"])
    if page.startswith("bench/results/"):
        source[0] = f"# {page}\n\n{source[0]}"
    if page == "docs/schema":
        source[0] += tables(json.loads((ROOT / "workflow/schemas/study.schema.json").read_text()))


def make_index(app: Sphinx, error: Exception | None) -> None:
    """Give the first page the name that web servers look for."""
    if not error:
        shutil.copy(Path(app.outdir, f"{root_doc}.html"), Path(app.outdir, "index.html"))


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", complete)
    app.connect("build-finished", make_index)
