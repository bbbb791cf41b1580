"""Claims: what the paper says, and what its controls ask, each as a comparison over cells of a study."""

from collections.abc import Collection, Mapping
from math import inf
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from hiddencost import catalog
from hiddencost.compression.registry import CONTROLS, kinds
from hiddencost.messages import Record, StudyError, describe_unknown_name, one_of, validate
from hiddencost.methods.registry import METHODS, run_by
from hiddencost.runs.measures import MEASURES
from hiddencost.runs.metrics import METRICS
from hiddencost.runs.shift_table import GROWTH
from hiddencost.runs.sides import SPLIT
from hiddencost.study.names import Name
from hiddencost.study.parts import Shots

# dense: neither compressed nor a control; compressed: in any way; sparse: in any way but quantisation
KINDS = ("dense", "compressed", "sparse", "quantised")
QUANTIFIERS = ("mean", "every", "most", "some")
SIDES = {"backbones", "methods", "shots"}  # what two sides may differ in


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _backbones(name: str) -> str:
    checkpoints = catalog.checkpoints()
    if name not in (allowed := [*KINDS, *CONTROLS, *sorted(kinds().keys() - set(KINDS)), *checkpoints]):
        raise ValueError(describe_unknown_name(name, allowed))
    return name


def compared_measures() -> dict[str, tuple[str, int | None]]:
    """Return what claims compare, by name: of each paired metric its column of runs.parquet and, of what is lost or
    added against the dense backbone, the sign that makes a loss positive, and by how much that is more on corrupted
    images (`shift_...`); and what the cost split says of a run."""
    measures: dict[str, tuple[str, int | None]] = {}
    for name, metric in METRICS.items():
        if metric.paired:
            cost = (f"{name}_lost", -1) if metric.higher_is_better else (f"{name}_added", 1)
            measures |= {name: (name, None), cost[0]: (name, cost[1])}
            measures[f"{GROWTH}{cost[0]}"] = f"{GROWTH}{name}", cost[1]
    return measures | {name: (name, 1) for name in SPLIT}


def factor(column: str) -> int:
    """Return what a value of a column is multiplied by to be in points."""
    return 1 if column in SPLIT else METRICS[column.removeprefix(GROWTH)].factor


def _measure(name: str) -> str:
    if name not in compared_measures():
        raise ValueError(describe_unknown_name(name, compared_measures()))
    return name


def _methods(names: list[str]) -> list[str]:
    return [method for name in names for method in (run_by("train") if name == "prompting" else (name,))]


class Cells(Record):
    """The cells that have one of the values of each axis named; one that is not named may have any.

    A claim that names datasets speaks of these alone, every other of datasets of the kind (see `pooled.pooled`).
    """

    backbones: Annotated[list[Annotated[str, AfterValidator(_backbones)]], BeforeValidator(_as_list)] | None = Field(
        None,
        description="dense, compressed, sparse (compressed other than by quantisation), quantised, a control, a "
        "compression (magnitude, ...; alone, not one on top of another; gmp, acdc, rigl and lth of published "
        "networks), or a checkpoint as it is published",
    )
    datasets: Annotated[list[Name], BeforeValidator(_as_list)] | None = None
    except_datasets: Annotated[list[Name], BeforeValidator(_as_list)] | None = Field(
        None, description="any dataset but these"
    )
    methods: (
        Annotated[
            list[Annotated[str, one_of(METHODS, "prompting")]], BeforeValidator(_as_list), AfterValidator(_methods)
        ]
        | None
    ) = Field(None, description="prompting stands for all that learn a prompt")
    shots: Annotated[list[Shots], BeforeValidator(_as_list)] | None = None

    @model_validator(mode="after")
    def _one_choice_of_datasets(self) -> "Cells":
        if {"datasets", "except_datasets"} <= self.named:
            raise ValueError("datasets and except_datasets do not go together")
        return self

    @property
    def named(self) -> set[str]:
        """The axes that are named."""
        return {axis for axis, values in self if values is not None}

    def told(self) -> list[str]:
        """Return the values of each axis that is named, in words."""
        return [f"{axis.replace('_', ' ')}: {_listed(values)}" for axis, values in self if values is not None]


def _listed(values: list) -> str:
    return "prompting" if values == run_by("train") else ", ".join(map(str, values))


def _against(left: Cells | None, right: Cells | None) -> list[str]:
    """Say what two sides differ in."""
    both = [(axis, one, other) for (axis, one), (_, other) in zip(left or (), right or (), strict=True)]
    return [f"{axis}: {_listed(one)} against {_listed(other)}" for axis, one, other in both if one is not None]


class Claim(Record):
    """A comparison over cells: a measure, or left minus right, against a bound, in points.

    Left is compared with right wherever they agree in seed, dataset and every other axis that they do not name. Of
    which cells the comparison is claimed says `of`; what decides is in `evidence.judge_cells`.
    """

    text: str = Field(description="the claim in a sentence")
    source: str
    measure: Annotated[str, AfterValidator(_measure)] = Field(
        description="accuracy_lost: dense minus backbone; ece_added: backbone minus dense; both paired by seed; or "
        "what the cost split says of a run, in a study with the analysis `split`: part_mapping, gain_mapping, ...; "
        "or with the analysis `shift`, by how much more it is on corrupted images than on clean ones: "
        "shift_accuracy_lost, ..."
    )
    explained_by: Annotated[str, one_of(MEASURES)] | None = Field(
        None,
        description="the claim is of the rank correlation, -1 to 1, of this measure with the accuracy that is lost, "
        "in a study with the analysis `why`: see `why.correlate`",
    )
    share: float | None = Field(
        None, gt=0, le=1, description="of a part of the cost split: the claim holds where it is more of the cost"
    )
    cells: Cells = Field(Cells(), description="what both sides have in common")
    left: Cells | None = None
    right: Cells | None = None
    networks: Annotated[str, one_of(("same", "any"))] = Field(
        "same", description="whether two sides that name backbones must share the dense one"
    )
    of: Annotated[str, one_of(QUANTIFIERS)] = Field(
        "mean",
        description="of what it is claimed: of the mean over all cells (see `pooled.pooled`), of every "
        "cell, of most (more than half), or of some (at least one)",
    )
    more_than: float | None = Field(None, description="the claim holds where the difference is greater")
    less_than: float | None = Field(None, description="the claim holds where the difference is smaller")
    within: float | None = Field(
        None, gt=0, description="the claim holds where the difference is nearer than this to `about`, either way"
    )
    about: float = Field(0, description="a value that is claimed, `within` so many points")
    order: Annotated[str, one_of(("none",))] | None = Field(
        None,
        description="none: cells differ in the sign of the difference, so that neither side is consistently better",
    )
    published: float | None = Field(
        None,
        description="the published value of the mean, not tested: the note says whether the interval holds it",
    )

    @property
    def bounds(self) -> tuple[float, float]:
        """Between which differences the claim holds, in points (of a share, of what is above it; of a measure that
        explains, correlations); of one without order, those above 0."""
        if self.within is not None:
            return self.about - self.within, self.about + self.within
        if self.order is not None or self.share is not None:
            return 0, inf
        return (
            -inf if self.more_than is None else self.more_than,
            inf if self.less_than is None else self.less_than,
        )

    @property
    def stated(self) -> dict[str, str]:
        """What the table of verdicts says of it: `text`, `source`, its `measure`, which cells it `compares`, and of
        which of these, or of their mean, what `bound` it claims."""
        points, amount = "" if self.explained_by else " points", "of both signs"
        if self.within is not None:
            amount = f"within {self.within:g}{points} of {self.about:g}"
        elif self.share is not None:
            amount = f"> {self.share:g} of the cost"
        elif self.order is None:
            sign, bound = (">", self.more_than) if self.more_than is not None else ("<", self.less_than)
            amount = f"{sign} {bound:g}{points}"
        explains = f"correlation of {self.explained_by} with " if self.explained_by else ""
        return {
            **{"text": self.text, "source": self.source, "measure": explains + self.measure},
            "compares": "; ".join([*self.cells.told(), *_against(self.left, self.right)]) or "all",
            "bound": f"{'cells' if self.order else 'mean' if self.of == 'mean' else f'{self.of} cell'} {amount}",
        }

    @model_validator(mode="after")
    def _one_bound(self) -> "Claim":
        stated = [self.more_than, self.less_than, self.within, self.order, self.share]
        if sum(bound is not None for bound in stated) != 1:
            raise ValueError("expected one of more_than, less_than, within, order and share")
        if self.about and self.within is None:
            raise ValueError("about needs within: how near to it a difference is")
        if self.order and self.of != "mean":
            raise ValueError("order is of all cells together: expected no `of` beside it")
        return self

    @property
    def analysis(self) -> str | None:
        """The analysis that a study has to have for it; None: any study is put to the test."""
        if self.explained_by:
            return "why"
        return "split" if self.measure in SPLIT else "shift" if self.measure.startswith(GROWTH) else None

    @model_validator(mode="after")
    def _of_analyses(self) -> "Claim":
        if self.share is not None and self.measure not in SPLIT:
            raise ValueError(f"share: {self.measure} is no part of the cost; expected one of {', '.join(SPLIT)}")
        plain = self.measure == "accuracy_lost" and self.left is None and self.of == "mean" and not self.order
        if self.explained_by and not plain:
            raise ValueError("explained_by: expected the measure accuracy_lost, without left, right, of and order")
        for name in ("more_than", "less_than", "within", "about") if self.explained_by else ():
            if abs(getattr(self, name) or 0) > 1:
                raise ValueError(f"{name}: of a rank correlation (explained_by); expected a number from -1 to 1")
        return self

    @model_validator(mode="after")
    def _two_sides_or_none(self) -> "Claim":
        if (self.left is None) != (self.right is None):
            raise ValueError("left and right go together")
        if self.left is None or self.right is None:
            if compared_measures()[self.measure][1] is None:
                raise ValueError(f"{self.measure} alone is no comparison; expected left and right")
        elif not self.left.named or self.left.named != self.right.named or self.left.named - SIDES:
            raise ValueError("left and right must name the same axes, at least one, and no datasets")
        elif repeated := self.left.named & self.cells.named:
            raise ValueError(f"{', '.join(sorted(repeated))}: named in cells and in left and right")
        return self


def load() -> dict[str, Claim]:
    """Return the claims of catalog/claims.yaml, by name.

    Raises:
        StudyError: a line for each thing that is wrong.
    """
    return _checked(catalog.load("claims"), f"{catalog.file_of('claims')}: ")


def of_study(stated: Mapping[str, Mapping[str, Any]], file: str, analyses: Collection[str] = ()) -> dict[str, Claim]:
    """Return a study's own claims, by name, those of the catalog before them.

    Args:
        stated: its key `claims`.
        file: the study's, for messages.
        analyses: its key `analysis`.

    Raises:
        StudyError: a line for each thing that is wrong; a name is the catalog's, or a claim needs another analysis.
    """
    known = load()
    if taken := sorted(known.keys() & stated.keys()):
        raise StudyError(f"{file}: claims.{taken[0]}: the catalog has a claim of this name; expected another")
    own = _checked(stated, f"{file}: claims.")
    for name, claim in own.items():
        if claim.analysis not in (None, *analyses):
            what = "explained_by" if claim.explained_by else claim.measure
            raise StudyError(f"{file}: claims.{name}: {what} needs analysis: [{claim.analysis}]")
    return known | own


def _checked(entries: Mapping[str, Mapping[str, Any]], before: str) -> dict[str, Claim]:
    return {name: validate(Claim, entry, f"{before}{name}") for name, entry in entries.items()}
