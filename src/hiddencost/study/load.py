"""The one way into a study: its config, checked part by part and as a whole."""

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
