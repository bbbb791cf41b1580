"""The model card of a learned model: what it is, how well it did, how it is used, and whose its parts are."""

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from hiddencost import catalog
from hiddencost.catalog.entries import UNCOMPRESSED
from hiddencost.compression.registry import CONTROLS
from hiddencost.datasets.prepare import sized
from hiddencost.messages import one_line
from hiddencost.methods.registry import METHODS

SHOWN = 20  # classes that are named
TEXT = """---
{{ card_data }}
---

# {{ title }}

An image classifier of {{ count }} classes, by hiddencost, a study of what compressing a pretrained network costs when
it is adapted by visual prompting ([arXiv 2308.14969](https://arxiv.org/abs/2308.14969)). The network is frozen; what
was learned is {{ learned }}.

| | |
|---|---|
{% for name, value in rows.items() -%}
| {{ name }} | {{ value }} |
{% endfor %}
The accuracy is that of this one run on the test images of its study. Another seed, and other images, give another.

## Use

```python
import hiddencost

model = hiddencost.load("{{ address }}")
scores = model(model.transform(["photo.jpg"])).softmax(1)[0]
print(model.classes[scores.argmax()], f"{scores.max():.0%}")
```

The model takes images of any size, uint8 or from 0 to 1; `transform` reads photos as the study did, at
{{ side }} x {{ side }} pixels.

## Whose it is

{{ owners }} Cite whose work it is, and the paper above, where you use this model.
"""


def card(about: dict, address: str) -> str:
    """Return the text of a repository's README.md, with the metadata that the Hub reads.

    Args:
        about: of the model, see `saved.SavedSettings`.
        address: of the repository, hf://USER/REPO.
    """
    run, origin = about["run"], about.get("origin") or {}
    method, classes = METHODS[run["method"]], about["classes"]
    title = f"{method.label} of {run['backbone']} on {run['dataset']}"
    shown = ", ".join(classes[:SHOWN]) + (f" and {len(classes) - SHOWN} more" if classes[SHOWN:] else "")
    rows = {
        "test accuracy": f"{run['accuracy']:.1%}",
        **_of_network(run["backbone"], about["architecture"], origin),
        "data set": run["dataset"],
        "classes": shown,
        "images a class": run["shots"] if method.trains else "none",
        "method": method.label,
        "seed": run["seed"],
        "study": run["study"],
        "run": run["run"],
    }
    result = EvalResult(
        task_type="image-classification",
        dataset_type=run["dataset"],
        dataset_name=run["dataset"],
        dataset_split="test",
        metric_type="accuracy",
        metric_value=run["accuracy"],
    )
    data = ModelCardData(
        library_name="hiddencost",
        pipeline_tag="image-classification",
        tags=["visual-prompting", "model-compression"],
        model_name=title,
        eval_results=[result],
    )
    learned = "a visual prompt" + (", and a mapping of the labels" if method.maps_by_predictions else "")
    if method.probes:
        learned = "its last layer" if method.trains else "nothing: the texts of the classes are its last layer"
    made = ModelCard.from_template(
        data,
        template_str=TEXT,
        title=_cell(title),
        count=len(classes),
        learned=learned,
        rows={name: _cell(value) for name, value in rows.items()},
        address=address,
        side=sized(about["size"])[0],
        owners=_owners(origin, run["dataset"]),
    )
    return str(made)


def _of_network(backbone: str, architecture: str, origin: dict) -> dict[str, str]:
    """Return what the card's table says of the network."""
    rows = {"network": backbone, "architecture": architecture}
    if not origin:
        return rows
    if origin["control"]:
        rows["control"] = origin["control"]
    if not _is_random(origin):
        is_own = origin.get("trained") is False and not origin["published"]
        rows["weights"] = origin["checkpoint"] + (", the user's own file" if is_own else "")
    if origin["compression"] != UNCOMPRESSED:
        rows["compression"] = f"{origin['compression']}, sparsity {origin['sparsity']:.1%}"
    return rows


def _is_random(origin: dict) -> bool:
    control = CONTROLS.get(origin["control"])
    return control is not None and not control.keeps_weights


def _owners(origin: dict, dataset: str) -> str:
    """Say whose the weights and the images are, as far as is known."""
    told = []
    if dataset in catalog.datasets():
        images = catalog.datasets()[dataset]
        told.append(_credit("The images", images.title, images.licence))
    return " ".join([*_owners_of_weights(origin), *told]) or "The network's weights and the images are others' work."


def _owners_of_weights(origin: dict) -> list[str]:
    if origin and _is_random(origin):
        return ["The network's weights are random: nobody has trained or published them."]
    if origin.get("trained") is None:
        return []  # of a file of before it was told
    published, what = origin.get("published"), "The network's weights"
    by_study = [f"{what} were trained by a study of hiddencost."] if origin["trained"] else []
    if published and catalog.architecture(published):
        entry = catalog.checkpoint(published)
        what = "They were trained from published ones" if by_study else what
        return [*by_study, _credit(what, entry.title, entry.licence)]
    return by_study or [f"{what} are of a file of the user's own, whose licence is not known here."]


def _credit(what: str, title: str, licence: str) -> str:
    return f"{what}: {one_line(title)}; licence: {one_line(licence)}."


def _cell(value: object) -> str:
    return one_line(value).replace("|", r"\|")
