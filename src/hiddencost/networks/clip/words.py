"""The names of classes as words, which a CLIP reads."""

import re
from collections import defaultdict
from collections.abc import Sequence

# 0, class_3, c7, n02123045: the folders of ImageNet are called by the numbers of WordNet. C is a name, and c++
NO_NAME = re.compile(r"(class|label|category|cls)?[\W_]*\d*|c[\W_]*\d+|n\d{8}", re.IGNORECASE)


def class_words(name: str) -> str:
    """Return a class's name as words: in small letters, with spaces for _ and - and between words written together.

    The first is the published code's (refine_classnames of ILM-VP), the last is ours: AnnualCrop is annual crop.
    """
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower().replace("_", " ").replace("-", " ")


def check_class_names(classes: Sequence[str] | None, given: bool) -> None:
    """Raise ValueError where a CLIP could not tell classes by their names.

    Args:
        classes: the names; None where there are none.
        given: whether somebody stated them as names; else they are those of folders.
    """
    nameless = None if given else next((name for name in classes or () if NO_NAME.fullmatch(name)), None)
    if not classes or nameless is not None:
        called = "have no names" if nameless is None else f"are called {nameless!r} and the like"
        raise ValueError(f"its classes {called}, and a CLIP reads the names; expected a name for each, as classes")
    alike = defaultdict(list)
    for name in classes:
        alike[class_words(name)].append(name)
    for words, names in alike.items():
        if names[1:]:
            raise ValueError(
                f"its classes {' and '.join(map(repr, names))} are {words!r} to a CLIP, which reads the names; "
                "expected different ones, as classes"
            )
