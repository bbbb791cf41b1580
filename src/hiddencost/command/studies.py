"""A study of one's own, written from `studies/template.yaml`, whose comments it keeps."""

import argparse
import json
import re
from pathlib import Path

from hiddencost import yaml_file
from hiddencost.messages import StudyError
from hiddencost.study.load import load_study

TEMPLATE = Path(__file__).parents[3] / "studies/template.yaml"
# what stands in it, for what flags say
CHECKPOINT, IMAGES = "mobilenetv2", "  - {name: cifar10-part, image_size: 104}\n"
SPARSE = "  - {name: pruned20, checkpoint: mobilenetv2, compression: {algorithm: magnitude, sparsity: 0.2}}\n"
SIZES = {"draft": 104, "paper": 128}  # of images, by recipe, where the catalog states none
LISTS = ("seeds", "shots", "methods")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `new` to its parser."""
    parser.add_argument("name", metavar="NAME", help="of the study: results go to results/NAME/")
    parser.add_argument("--recipe", choices=SIZES, default="draft", help="how long prompts are trained (draft)")
    parser.add_argument("--checkpoint", default=CHECKPOINT, help=f"pretrained network ({CHECKPOINT})")
    parser.add_argument("--sparsities", metavar="0.2,0.5", help="shares of its weights to prune, by magnitude (0.2)")
    images = parser.add_mutually_exclusive_group()
    images.add_argument("--dataset", help="images, by a name of the catalog (cifar10-part)")
    images.add_argument("--images", metavar="FOLDER", help="your own: train/CLASS/*, test/CLASS/*; or CLASS/*")
    for axis in LISTS:
        parser.add_argument(f"--{axis}", metavar="A,B", help="in place of the template's")
    parser.set_defaults(does=new)


def new(arguments: argparse.Namespace) -> str:
    """Write a study, into `studies/` where there is such a folder; return what to do with it.

    Raises:
        FileExistsError: if there is one of that name.
        StudyError: in a line for each thing, if it would be none; nothing is written.
    """
    file = Path("studies" if Path("studies").is_dir() else ".", f"{arguments.name}.yaml")
    text = write(TEMPLATE.read_text("utf-8"), arguments)
    try:
        load_study(yaml_file.value(text, str(file)), str(file))
    except StudyError as error:
        raise StudyError(str(error).replace(f"{file}: ", "")) from None
    with open(file, "x", encoding="utf-8") as opened:
        opened.write(text)
    return f"{file} is written. What would run, and how long it takes: hiddencost plan {file}"


def write(template: str, arguments: argparse.Namespace) -> str:
    """Return the template with what flags say in the place of what it says."""
    text = template.replace("study: template ", f"study: {arguments.name} ").replace(
        "results/template/", f"results/{arguments.name}/"
    )
    for axis in LISTS:
        if given := getattr(arguments, axis):
            (line,) = re.findall(rf"^{axis}: \[.*?\]", text, re.MULTILINE)
            text = text.replace(line, f"{axis}: [{given.replace(',', ', ')}]")
    if arguments.sparsities:
        shares = arguments.sparsities.split(",")
        text = text.replace(SPARSE, "".join(map(_pruned, shares)))
    text = text.replace(f"checkpoint: {CHECKPOINT}", f"checkpoint: {arguments.checkpoint}")
    return _with_recipe(text.replace(IMAGES, _images(arguments)), arguments.recipe)


def _pruned(share: str) -> str:
    try:
        name = f"pruned{100 * float(share):g}".replace(".", "-")
    except ValueError:
        raise ValueError(f"--sparsities: {share!r} is no number; expected shares such as 0.2,0.5") from None
    return SPARSE.replace("pruned20", name).replace("sparsity: 0.2", f"sparsity: {share}")


def _images(arguments: argparse.Namespace) -> str:
    """Return the line of the images: of a folder without a part for tests, a fifth of each class is one."""
    size = SIZES[arguments.recipe]
    if not arguments.images:
        name = arguments.dataset or "cifar10-part"
        return f"  - {{name: {name}, image_size: {_published_size(name) if arguments.recipe == 'paper' else size}}}\n"
    folder = Path(arguments.images).expanduser().absolute()
    share = "" if (folder / "test").is_dir() else ", test_share: 0.2"
    return f"  - {{name: images, folder: {json.dumps(str(folder))}{share}, image_size: {size}}}\n"


def _published_size(name: str) -> int:
    from hiddencost import catalog

    entry = catalog.datasets().get(name)
    return (entry.image_size if entry else None) or SIZES["paper"]


def _with_recipe(text: str, recipe: str) -> str:
    """Return a study with one of its recipes: the other one's lines have a # before them."""
    parts = re.split(r"(?m)^(?=# recipe \w+: |# of both recipes)", text)
    return "".join(_as_recipe(part, recipe) if part.startswith("# recipe ") else part for part in parts)


def _as_recipe(part: str, recipe: str) -> str:
    lines = [line if re.match(r"# \S|$", line) else line.removeprefix("#") for line in part.split("\n")]
    if not part.startswith(f"# recipe {recipe}: "):
        lines = [line if re.match(r"# \S|$", line) else f"#{line}" for line in lines]
    return "\n".join(lines)
