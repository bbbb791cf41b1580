"""The study's figures: which there are, which networks stand together in one, and what each shows."""

from collections.abc import Container, Iterable
from itertools import chain, count
from typing import TYPE_CHECKING

from hiddencost.compression.registry import CONTROLS, entry_of, last_applied
from hiddencost.methods.registry import METHODS

if TYPE_CHECKING:  # the Snakefile, which asks for the list alone, does not wait for pandas
    from pandas import DataFrame
FEW = 4  # compressed networks that one figure of curves can show
# what each kind of figure reads, of the study's tables
TABLES = {
    "accuracy": ("summary",),
    "heatmap": ("summary",),
    "calibration": ("summary",),
    "reliability": ("runs", "bins"),
    "mapping": ("mappings", "examples"),
    "movement": ("remapped",),
    "prompts": ("prompts",),
    "glance": ("runs", "upstream", "matched"),
}


def listed(backbones: dict[str, dict], datasets: list[str], methods: list[str], labels: dict[str, str]) -> dict:
    """Return the figures that a study has, by name: what `figures.draw` takes of each.

    backbones: by name, in the order of the figures, what the study states: `checkpoint`, `compression`, `control`,
    `sparsity_declared` and `dense` (the name of the network to compare with); labels: what to write instead of names.

    A figure's `kind` is one of `TABLES`; it shows `datasets`, and `backbones` by name, each as `described` tells it.
    Of "glance" `references` are networks that others are compared with and that are not shown themselves.
    """
    kinds = ["accuracy", "heatmap", "calibration", "reliability"]
    kinds += ["mapping"] if any(METHODS[name].maps_by_predictions for name in methods) else []
    kinds += ["movement"] if any(METHODS[name].redraws for name in methods) else []
    kinds += ["prompts"] if any(METHODS[name].prompts for name in methods) else []
    figures = {}
    for suffix, (dense, names) in grouped(backbones).items():
        shown = described({name: backbones[name] for name in names}, dense, labels)
        # where levels are many, their maps need the room of a figure for each dataset, too
        apart = datasets if len(datasets) > 1 and len(in_role(shown, "compressed")) > FEW else []
        for kind in kinds:
            if kind in ("heatmap", "calibration") and not dense:
                continue
            what = {"kind": kind, "backbones": shown}
            figures[_free("-".join([kind, *suffix]), figures)] = what | {"datasets": datasets}
            if kind in ("heatmap", "calibration"):
                for one in apart:
                    figures[_free("-".join([kind, *suffix, one]), figures)] = what | {"datasets": [one]}
    if any(one["dense"] not in (name, None) for name, one in backbones.items()):
        shown = described(backbones, None, labels)
        references = {one["dense"] for one in backbones.values()} - {None, *backbones}
        what = {"kind": "glance", "backbones": shown, "references": sorted(references)}
        figures["glance"] = what | {"datasets": datasets}
    return figures


def _free(name: str, taken: Container[str]) -> str:
    """Return a name, with a number where it is taken."""
    numbered = (f"{name}-{number}" for number in count(2))
    return next(one for one in chain([name], numbered) if one not in taken)


def grouped(backbones: dict[str, dict]) -> dict[tuple[str, ...], tuple[str | None, list[str]]]:
    """Return which networks stand together: the dense one and all names, by what tells their figures' names apart.

    Those compared with one dense network stand with it; where more than `FEW` of them are compressed, by several
    algorithms (quantisation aside), a group an algorithm, with the quantised and the controls beside each. Networks
    that nothing is compared with are a group without a dense one.
    """
    members: dict[str, list[str]] = {}
    for name, one in backbones.items():
        members.setdefault(one["dense"] or name, []).append(name)
    alone = [name for dense, names in members.items() if names == [dense] for name in names]
    stems = [dense.removesuffix("-dense") for dense in members]
    found: dict[str, tuple[str | None, list[str]]] = {}
    for dense, stem in zip(members, stems, strict=True):
        if dense in alone:
            continue
        others = [name for name in members[dense] if name != dense]
        made = {name: last_applied(backbones[name]["compression"]) for name in others if _is_made(backbones[name])}
        removing = dict.fromkeys(entry.kind for entry in made.values() if not entry.quantises)
        kinds = list(removing or dict.fromkeys(entry.kind for entry in made.values()))
        stem = stem if stems.count(stem) == 1 else dense
        first = [dense] if dense in backbones else []
        if not made or (len(kinds) > 1 and len(made) <= FEW):
            found[_free(stem, found)] = dense, [*first, *others]
            continue
        for kind in kinds:
            others_of_kind = [
                name for name in others if name not in made or made[name].quantises or made[name].kind == kind
            ]
            found[_free(f"{stem}-{kind}", found)] = dense, [*first, *others_of_kind]
    if alone:
        found = {_free("dense", found): (None, alone)} | found
    return {() if len(found) == 1 else (name,): group for name, group in found.items()}


def whose_mapping(methods: list[str], ran: Container[str]) -> str:
    """Return the method whose label mappings figures show: the first of the study's with a result (of all, if none
    has), those that are redrawn before those that are not."""
    by_predictions = [name for name in methods if METHODS[name].maps_by_predictions]
    there = [name for name in by_predictions if name in ran] or by_predictions
    return min(there, key=lambda name: not METHODS[name].redraws)


def in_role(shown: dict[str, dict], role: str) -> list[str]:
    """Return the names of a figure's networks in a role."""
    return [name for name, one in shown.items() if one["role"] == role]


def spread(shown: dict[str, dict], names: list[str], most: int) -> list[str]:
    """Return at most so many of the names (3 or more), in their order: evenly spread by sparsity, the least and the
    most sparse among them, and of the quantised the last."""
    if len(names) <= most:
        return names
    sparse, quantised = _by_sparsity(shown, names), [name for name in names if shown[name]["quantised"]]
    last = quantised[-1:] if sparse else []
    chosen, room = sparse or quantised, most - len(last)
    if len(chosen) > room:
        chosen = [chosen[round(index * (len(chosen) - 1) / (room - 1))] for index in range(room)]
    return [name for name in names if name in (*chosen, *last)]


def _by_sparsity(shown: dict[str, dict], names: list[str]) -> list[str]:
    """Return the names of those that are not quantised, the sparsest last; of one sparsity (or an unknown one, before
    all) in their order."""
    sparse = [name for name in names if not shown[name]["quantised"]]
    return sorted(sparse, key=lambda name: shown[name]["sparsity"] or 0)


def pair(shown: dict[str, dict], ran: Iterable[str]) -> list[str]:
    """Return the dense network of a group, and the most compressed one that has a result.

    That is the sparsest as declared, else the last that is quantised, else the last control. ran: the names of the
    networks with a result. Where none but the dense has one, it is alone; where there are dense networks alone, all
    of them.
    """
    ran = set(ran)
    there = {name: one for name, one in shown.items() if name in ran}
    compressed = in_role(there, "compressed")
    quantised = [name for name in compressed if shown[name]["quantised"]]
    others = [*in_role(there, "control"), *quantised, *_by_sparsity(shown, compressed)]
    return [*in_role(shown, "dense"), *others[-1:]]


def kept(runs: "DataFrame", shown: dict[str, dict]) -> list[tuple[str, str, str, str, int]]:
    """Return the (backbone, dataset, method, shots, seed) of which a figure shows what was learned.

    runs: the axes of the finished ones, in the order of the study; shown: the figure's networks. For each dataset and
    method: the dense and the most compressed network with a result (see `pair`), at the largest number of shots, and
    the first seed, that both ran.
    """
    found = []
    for (dataset, method), own in runs.groupby(["dataset", "method"], sort=False):
        names = pair(shown, own["backbone"])
        ran = own[own["backbone"].isin(names)].groupby(["shots", "seed"], sort=False)["backbone"].agg(set).to_dict()
        most = max(map(len, ran.values()), default=0)
        both = [key for key, there in ran.items() if len(there) == most]
        if both:
            shots = largest(shots for shots, _ in both)
            seed = next(seed for of, seed in both if of == shots)
            found += [(name, dataset, method, shots, seed) for name in names if name in ran[shots, seed]]
    return found


def largest(shots: Iterable[str]) -> str:
    """Return the largest number of shots, of which "full" is the largest."""
    return max(shots, key=lambda one: float("inf") if one == "full" else int(one))


def described(backbones: dict[str, dict], dense: str | None, labels: dict[str, str]) -> dict[str, dict]:
    """Return the `label` and the `role` ("dense", "compressed" or "control") of each network that is shown (see
    `listed`), the `sparsity` that it declares (None where it is not known), and whether it is `quantised`.

    A label that would stand for two of them gives way to their names.
    """
    told = {}
    for name, one in backbones.items():
        is_dense = one["compression"] == "none" and one["dense"] in (name, None)
        role = "dense" if is_dense or name == dense else "compressed" if _is_made(one) else "control"
        told[name] = {
            "role": "control" if one["control"] else role,
            "label": _label(one, role),
            "sparsity": one["sparsity_declared"],
            "quantised": one["compression"] != "none" and last_applied(one["compression"]).quantises,
        }
    plain = [one["label"] for one in told.values()]
    for name, one in told.items():
        ambiguous = plain.count(one["label"]) > 1
        one["label"] = labels.get(name, name if ambiguous else one["label"])
    return told


def _label(one: dict, role: str) -> str:
    if one["control"]:
        return CONTROLS[one["control"]].title
    if one["compression"] == "none":
        return "dense" if role == "dense" else one["checkpoint"]
    first, _, rest = one["compression"].partition("+")
    entry = entry_of(first)
    what = entry.in_figures(first) + (f" + {rest}" if rest else "")
    if not one["sparsity_declared"] or not entry.shows_sparsity:
        return what
    return f"{what} {one['sparsity_declared']:.0%}".replace("%", " %")


def _is_made(one: dict) -> bool:
    return one["compression"] != "none" and not one["control"]
