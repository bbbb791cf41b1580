"""The words and flags of the command `hiddencost`, and what each does."""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from hiddencost.command import add_checkpoint, overrides, predict, status, studies

ROOT = Path(__file__).parents[3]
SNAKEMAKE = {  # what each command calls it with, before and behind the words of the user's own
    "run": ([], []),
    "plan": ([], ["--dry-run", "--quiet", "host", "reason", "rules", "progress"]),
    "figures": (["figures"], []),
}
SO_FAR = ["--nolock"]  # beside a call that runs
EXAMPLES = """
hiddencost plan                                    the quickstart study, config.yaml: what would run, and for how long
hiddencost run                                     run it
hiddencost run studies/mine.yaml --seeds 0,1 --set protocol.epochs=3
hiddencost run studies/mine.yaml -- --workflow-profile profiles/slurm

What stands behind ` -- ` goes to snakemake as it is. Each command prints the call of snakemake that it makes.
"""


def main(words: Sequence[str] | None = None) -> None:
    """Do what a command line asks for; words: of the command line, those of this process by default."""
    words = list(sys.argv[1:] if words is None else words)
    own, rest = (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    arguments = _parser().parse_args(own)
    try:
        if arguments.command in SNAKEMAKE:
            _call_snakemake(snakemake_words(arguments, rest))
        elif rest:
            raise ValueError(f"{arguments.command}: it calls no snakemake; expected nothing behind --")
        else:
            print(arguments.does(arguments))
    except (OSError, ValueError) as error:
        sys.exit("\n".join(f"hiddencost: {line}" for line in str(error).splitlines()))


def snakemake_words(arguments: argparse.Namespace, rest: Sequence[str]) -> list[str]:
    """Return what `snakemake` is called with for a command; rest: further words for it, which stand before flags that
    take all that follows."""
    told = overrides.of(arguments)
    so_far = getattr(arguments, "so_far", False)
    flags = overrides.as_config(told | ({"partial": "true"} if so_far else {}))
    files = overrides.files(arguments.study)
    given = {word.partition("=")[0] for word in rest}
    if (given & {"--config", "-C"} and flags) or (given & {"--configfile", "--configfiles"} and files):
        raise ValueError(
            "behind --: snakemake takes the last --config and --configfile alone; expected --set, or a further STUDY"
        )
    before, behind = SNAKEMAKE[arguments.command]
    words = [*before, *rest, *behind, *(SO_FAR if so_far else [])]
    return [*words, *(["--configfile", *files] if files else []), *(["--config", *flags] if flags else [])]


def _call_snakemake(words: list[str]) -> None:
    """Become a call of `snakemake`, on the workflow of this checkout, whatever the folder it is called in."""
    snakefile = ROOT / "Snakefile"
    if not snakefile.is_file():
        raise FileNotFoundError(f"{snakefile}: there is none; expected hiddencost to be installed from a checkout")
    if not Path("Snakefile").exists() or not Path("Snakefile").samefile(snakefile):
        words = ["--snakefile", str(snakefile), *words]
    print("+", shlex.join(["snakemake", *words]), file=sys.stderr, flush=True)
    os.execv(sys.executable, [sys.executable, "-m", "snakemake", *words])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "hiddencost",
        description="What compressing a pretrained vision network costs when it is adapted by visual prompting.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    of_study = argparse.ArgumentParser(add_help=False)
    of_study.add_argument(
        "study", nargs="*", metavar="STUDY", help="its file (config.yaml if none); a further one adds"
    )
    of_study.add_argument("--seeds", metavar="0,1", help="in place of the study's")
    of_study.add_argument("--shots", metavar="1,full", help="in place of the study's")
    of_study.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="any setting: --set protocol.epochs=3"
    )
    for name, help in (("run", "run a study"), ("plan", "say what would run, and how long it takes")):
        commands.add_parser(name, parents=[of_study], help=help, description=help)
    help = "draw the figures of a study, and make what they need"
    figures = commands.add_parser("figures", parents=[of_study], help=help, description=help)
    figures.add_argument("--so-far", action="store_true", help="of what is there, into results/STUDY/partial/")
    help = "say how far a study is, from its files: another call may run it"
    commands.add_parser("status", parents=[of_study], help=help, description=help).set_defaults(does=status.status)
    help = "write a study of your own, with comments"
    studies.add_arguments(commands.add_parser("new", help=help, description=help))
    help = "look at a network of your own, and say the lines of a study that name it"
    add_checkpoint.add_arguments(commands.add_parser("add-checkpoint", help=help, description=help))
    help = "classify images with what a run has learned"
    predict.add_arguments(commands.add_parser("predict", help=help, description=help))
    return parser
