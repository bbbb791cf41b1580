"""The one way into a study: its config, checked part by part and as a whole."""

from collections.abc import Iterable
from pathlib import Path

from hiddencost import yaml_file
from hiddencost.messages import StudyError, validate
from hiddencost.study.checks import CHECKS
from hiddencost.study.study import Study


def load_study(config: dict, file: str) -> Study:
    """Return the study that a config states.

    Args:
        config: the keys of the study's YAML.
        file: what the config was read from, for messages.

    Raises:
        StudyError: a line for each thing that is wrong in a part or, where the parts are right, for the first way in
            which they do not fit together.
    """
    study = validate(Study, config, file)
    try:
        for check in CHECKS:
            check(study)
    except ValueError as error:
        raise StudyError(f"{file}: {error}") from None
    return study


def refuse_studies(words: Iterable[str], files: Iterable[Path]) -> None:
    """Raise StudyError, one line, where the file of a study is among the words of a command, as if it were one to
    make; files: of the studies that the command names as such."""
    named = {path.resolve() for path in files}
    for word in words:
        path = Path(word)
        is_other = path.suffix in (".yaml", ".yml") and path.is_file() and path.resolve() not in named
        if is_other and "study" in yaml_file.read(path, word):
            raise StudyError(f"{word}: it is a study, and nothing to be made; expected --configfile {word}")
