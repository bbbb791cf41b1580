"""What a figure of a study shows: which backbones stand together, in which role, and which speak for the others."""

from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import chain, count
from types import MappingProxyType
from typing import TYPE_CHECKING

from hiddencost.catalog.entries import UNCOMPRESSED
from hiddencost.compression.registry import CONTROLS, PUBLISHED, entry_of, last_applied
from hiddencost.methods.registry import METHODS

if TYPE_CHECKING:  # the Snakefile, which asks for the figures alone, does not wait for pandas
    from pandas import DataFrame
MAX_CURVES = 4  # of compressed networks that one figure can show
MAP_CELLS = 3  # that a heat map of a method takes at least, for its title
DENSE, COMPRESSED, CONTROL = "dense", "compressed", "control"  # the roles of a backbone in a figure


@dataclass(frozen=True)
class ShownBackbone:
    """What a figure tells of a backbone, and chooses it by.

    Attributes:
        role: `DENSE`, `COMPRESSED` or `CONTROL`.
        sparsity: the share of zeros that it declares, 0 to 1; None where none is published and none was measured yet.
        quantised: whether its weights are.
        label: what the figure calls it; "" where it is only chosen, as what is drawn decides no choice.
        trained: whether it has learned: no random or shuffled network.
    """

    role: str
    sparsity: float | None
    quantised: bool
    label: str = ""
    trained: bool = True


@dataclass(frozen=True)
class StudyFigure:
    """A figure of a study: what it shows, and what draws it.

    Attributes:
        kind: a name of `figures.registry.FIGURES`.
        drawn_by: "module:function", as of the kind.
        backbones: those shown, by name, in their order.
        datasets: names of those shown, in their order.
        references: of a figure of all backbones, the dense networks that some are compared with and that are not
            shown themselves.
        title: what it calls the network that its backbones come from; "" where they come from several.
        methods: names of those shown, where it is one of several pages; none: all that the study shows.
    """

    kind: str
    drawn_by: str
    backbones: dict[str, ShownBackbone]
    datasets: list[str]
    references: list[str] = field(default_factory=list)
    title: str = ""
    methods: list[str] = field(default_factory=list)

    def to_json(self) -> dict:
        """Return it for JSON, the backbones as pairs: their order is that of the figure, and objects may lose it."""
        content = asdict(self)
        return content | {"backbones": list(content["backbones"].items())}

    @classmethod
    def from_json(cls, content: dict) -> "StudyFigure":
        """Return the figure of what `to_json` gave."""
        backbones = {name: ShownBackbone(**shown) for name, shown in content["backbones"]}
        return cls(**content | {"backbones": backbones})


def free_name(name: str, taken: Container[str]) -> str:
    """Return a name, with a number where it is taken."""
    numbered = (f"{name}-{number}" for number in count(2))
    return next(candidate for candidate in chain([name], numbered) if candidate not in taken)


def group_backbones(backbones: Mapping[str, dict]) -> dict[tuple[str, ...], tuple[str | None, list[str]]]:
    """Return which backbones stand together in a figure.

    Those compared with one dense network stand with it; where more than `MAX_CURVES` of them are compressed, by
    several algorithms (quantisation aside), a group an algorithm, with the quantised and the controls beside each.
    Backbones that nothing is compared with are a group without a dense one.

    Args:
        backbones: by name, what the study states of each (see `figures.registry.figures_of_study`).

    Returns:
        By what tells the names of the groups' figures apart (nothing, where there is one group): the name of the
        dense network, or None, and the names of all, the dense one first.
    """
    members: dict[str, list[str]] = {}
    for name, stated in backbones.items():
        members.setdefault(stated["dense"] or name, []).append(name)
    alone = [name for dense, names in members.items() if names == [dense] for name in names]
    stems = [dense.removesuffix("-dense") for dense in members]
    groups: dict[str, tuple[str | None, list[str]]] = {}
    for dense, stem in zip(members, stems, strict=True):
        if dense in alone:
            continue
        others = [name for name in members[dense] if name != dense]
        made = {name: last_applied(backbones[name]["compression"]) for name in others if _is_made(backbones[name])}
        removing = dict.fromkeys(entry.kind for entry in made.values() if not entry.quantises)
        kinds = list(removing or dict.fromkeys(entry.kind for entry in made.values()))
        stem = stem if stems.count(stem) == 1 else dense
        first = [dense] if dense in backbones else []
        if not made or (len(kinds) > 1 and len(made) <= MAX_CURVES):
            groups[free_name(stem, groups)] = dense, [*first, *others]
            continue
        for kind in kinds:
            of_kind = [name for name in others if name not in made or made[name].quantises or made[name].kind == kind]
            groups[free_name(f"{stem}-{kind}", groups)] = dense, [*first, *of_kind]
    if alone:
        groups = {free_name("dense", groups): (None, alone)} | groups
    return {() if len(groups) == 1 else (name,): group for name, group in groups.items()}


def method_of_mappings(methods: Iterable[str], with_result: Container[str]) -> str:
    """Return the method whose label mappings figures show: the first of the study's with a result (of all, if none
    has), those that are redrawn before those that are not."""
    by_predictions = [name for name in methods if METHODS[name].maps_by_predictions]
    ran = [name for name in by_predictions if name in with_result] or by_predictions
    return min(ran, key=lambda name: not METHODS[name].moves_mapping)


def names_in_role(shown: Mapping[str, ShownBackbone], role: str) -> list[str]:
    """Return the names of a figure's backbones in a role."""
    return [name for name, backbone in shown.items() if backbone.role == role]


def spread_by_sparsity(shown: Mapping[str, ShownBackbone], names: list[str], most: int) -> list[str]:
    """Return some of a figure's backbones, evenly spread by sparsity.

    Args:
        shown: the figure's backbones.
        names: those to choose from.
        most: so many at most, 3 or more.

    Returns:
        Names in their order: the least and the most sparse among them, and of the quantised the last.
    """
    if len(names) <= most:
        return names
    sparse, quantised = _by_sparsity(shown, names), [name for name in names if shown[name].quantised]
    last = quantised[-1:] if sparse else []
    chosen, room = sparse or quantised, most - len(last)
    if len(chosen) > room:
        chosen = [chosen[round(index * (len(chosen) - 1) / (room - 1))] for index in range(room)]
    return [name for name in names if name in (*chosen, *last)]


def _by_sparsity(shown: Mapping[str, ShownBackbone], names: list[str]) -> list[str]:
    """Return the names of those that are not quantised, the sparsest last; of one sparsity (or an unknown one, before
    all) in their order."""
    sparse = [name for name in names if not shown[name].quantised]
    return sorted(sparse, key=lambda name: shown[name].sparsity or 0)


def dense_and_most_compressed(shown: Mapping[str, ShownBackbone], with_result: Iterable[str]) -> list[str]:
    """Return the names of the dense network of a group, and of the most compressed one that has a result.

    That is the sparsest as declared, else the last that is quantised, else the last control. Where none but the dense
    has a result, it is alone; where there are dense networks alone, all of them.

    Args:
        shown: the group's backbones.
        with_result: names of those that have one.
    """
    with_result = set(with_result)
    ran = {name: backbone for name, backbone in shown.items() if name in with_result}
    compressed = names_in_role(ran, COMPRESSED)
    quantised = [name for name in compressed if shown[name].quantised]
    others = [*names_in_role(ran, CONTROL), *quantised, *_by_sparsity(shown, compressed)]
    return [*names_in_role(shown, DENSE), *others[-1:]]


def with_measured_sparsity(shown: Mapping[str, ShownBackbone], table: "DataFrame") -> dict[str, ShownBackbone]:
    """Return a figure's backbones with the sparsity that was measured of those of which none is published, by which
    levels are chosen. Labels stay as the study states them.

    Args:
        shown: the backbones.
        table: of runs or cells, with `sparsity_measured`.
    """
    of_backbones = table.dropna(subset="sparsity_measured").drop_duplicates("backbone")
    measured = dict(zip(of_backbones["backbone"], of_backbones["sparsity_measured"], strict=True))
    return {
        name: replace(one, sparsity=measured.get(name)) if one.sparsity is None else one
        for name, one in shown.items()
    }


def runs_shown(runs: "DataFrame", shown: Mapping[str, ShownBackbone]) -> list[tuple[str, str, str, str, int]]:
    """Return of which runs a figure shows what was learned.

    For each dataset and method: of the dense and the most compressed network with a result (see
    `dense_and_most_compressed`), at the largest number of shots, and the first seed, that both ran.

    Args:
        runs: the axes of the finished ones, a row each, in the order of the study.
        shown: the figure's backbones.

    Returns:
        The runs' (backbone, dataset, method, shots, seed).
    """
    chosen = []
    for (dataset, method), finished in runs.groupby(["dataset", "method"], sort=False):
        names = dense_and_most_compressed(shown, finished["backbone"])
        budgets = finished[finished["backbone"].isin(names)].groupby(["shots", "seed"], sort=False)
        ran = budgets["backbone"].agg(set).to_dict()
        most = max(map(len, ran.values()), default=0)
        both = [key for key, backbones in ran.items() if len(backbones) == most]
        if both:
            shots = largest_shots(shots for shots, _ in both)
            seed = next(seed for number, seed in both if number == shots)
            chosen += [(name, dataset, method, shots, seed) for name in names if name in ran[shots, seed]]
    return chosen


def largest_shots(shots: Iterable[str]) -> str:
    """Return the largest number of shots, of which "full" is the largest."""
    return max(shots, key=lambda number: float("inf") if number == "full" else int(number))


def describe_backbones(
    backbones: Mapping[str, dict],
    dense: str | None,
    labels: Mapping[str, str],
    checkpoints: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, ShownBackbone]:
    """Return what a figure tells of each backbone that it shows, by name.

    Args:
        backbones: by name, what the study states of each (see `figures.registry.figures_of_study`).
        dense: the name of the one that the others are compared with, if any.
        labels: what to write instead of names. A label that would stand for two of them gives way to their names.
        checkpoints: what to write instead of the names of checkpoints.
    """
    roles, label_of = {}, {}
    for name, stated in backbones.items():
        is_dense = stated["compression"] == UNCOMPRESSED and stated["dense"] in (name, None)
        roles[name] = DENSE if is_dense or name == dense else COMPRESSED if _is_made(stated) else CONTROL
        label_of[name] = _label(stated, roles[name], checkpoints)
    times = Counter(label_of.values())
    for name, stated in backbones.items():  # of several of one kind each by what it is
        published = roles[name] == DENSE or stated["compression"] in PUBLISHED
        if published and not stated["control"] and times[label_of[name]] > 1:
            label_of[name] = checkpoints.get(stated["checkpoint"], name)
    times = Counter(label_of.values())
    return {
        name: ShownBackbone(
            role=CONTROL if stated["control"] else roles[name],
            sparsity=stated["sparsity_declared"],
            quantised=stated["compression"] != UNCOMPRESSED and last_applied(stated["compression"]).quantises,
            label=labels.get(name, label_of[name] if times[label_of[name]] == 1 else name),
            trained=not stated["control"],
        )
        for name, stated in backbones.items()
    }


def _label(stated: dict, role: str, checkpoints: Mapping[str, str]) -> str:
    if stated["control"]:
        return CONTROLS[stated["control"]].title
    if stated["compression"] == UNCOMPRESSED:
        return "dense" if role == DENSE else checkpoints.get(stated["checkpoint"], stated["checkpoint"])
    first, _, rest = stated["compression"].partition("+")
    entry = entry_of(first)
    title = entry.in_figures(first) + (f" + {rest}" if rest else "")
    if not stated["sparsity_declared"] or not entry.shows_sparsity:
        return title
    return f"{title} {stated['sparsity_declared']:.0%}".replace("%", " %")


def _is_made(stated: dict) -> bool:
    return stated["compression"] != UNCOMPRESSED and not stated["control"]
