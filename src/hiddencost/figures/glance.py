"""Hidden cost at a glance: upstream accuracy kept against downstream accuracy lost."""

from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox

from hiddencost.compression.registry import CONTROLS, last_applied
from hiddencost.figures import bars, style
from hiddencost.results import gallery
from hiddencost.results.counterparts import with_same_recipe
from hiddencost.results.gallery import COMPRESSED, StudyFigure
from hiddencost.results.matched import EVERY_KIND, LOST
from hiddencost.results.pooled import pooled
from hiddencost.results.upstream import reached
from hiddencost.results.verdicts import counted, differences

# a kind of compression; Okabe and Ito's and Tol's
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255"]
ROWS = 3  # of two panels; of more methods three stand abreast
AROUND = 1.9  # inches of a page that title and legend may take
MARKERS = ["o", "s", "D", "^", "v", "P", "X"]  # a dense network that others are compared with
CONTROL_COLOUR = "0.45"
MATCHED: dict[str, Any] = {"color": "black", "marker": "o", "ms": 4, "ls": ""}
DOT: dict[str, Any] = {"color": "black", "marker": "o", "ms": 4, "ls": ""}  # in the legend
# above bars, and told apart from them
NOTE: dict[str, Any] = {"textcoords": "offset points", "size": 7, "zorder": 4, "path_effects": style.OUTLINE}
NOTE |= {"in_layout": False}
# where a text may stand by its point, in points: the first free place is taken
NEAR = [(-3, 3), (3, 3), (-3, -9), (3, -9), (-6, -3), (6, -3)]
CLEAR = np.array([5.0, 3.0])  # points to either side of, and over and under, another network's
LEADER: dict[str, Any] = {"arrowstyle": "-", "lw": 0.5, "shrinkA": 0, "shrinkB": 2}
FAR = [(x, y) for y in (10, -16, 17, -23, 24, -30, 31, -37, 38) for x in (-3, 3)]
APART = 0.035  # of the axis, between networks that kept the same


class Scale(NamedTuple):
    """What stands on the axis of what was kept.

    Attributes:
        label: of the axis.
        dense: where a network stands that kept all of the dense one's.
        least: how far the axis reaches to the left of it, at least.
        margin: how far beyond the last network.
    """

    label: str
    dense: float
    least: float
    margin: float


KEPT = Scale("upstream accuracy kept (%)", 100.0, 5.0, 2.5)


def draw(tables: dict[str, pd.DataFrame], content: StudyFigure, settings: dict) -> Figure:
    """A panel a method, a point a network: its mean loss over datasets, shots and seeds, with its interval.

    A star is by a point of which cells are missing, as the means of others are over other cells. A mark on the right
    edge is the hidden cost at matched upstream accuracy (see `matched.matched`). Networks whose upstream accuracy
    nobody knows stand in a strip on the left. Where it was measured on photos, a bar is its interval.

    Args:
        tables: `runs`, `upstream` and `matched`.
        content: the figure's backbones and datasets.
        settings: the study's `figures`, see `draw.draw`.
    """
    runs, backbones = with_same_recipe(tables["runs"]), content.backbones
    methods = style.order(runs, "method")
    lost = differences(counted(runs), LOST, "accuracy")
    lost = lost[lost["backbone"].isin(list(backbones))]
    kept, scale = _kept(runs, tables["upstream"], [name for name in backbones if backbones[name].role == COMPRESSED])
    points = _points(runs, lost, kept, backbones)
    at_matched = tables["matched"].dropna(subset="cost_at_matched")
    at_matched = at_matched[(at_matched["compression"] == EVERY_KIND) & at_matched["dense"].isin(points["dense"])]
    colours, markers = _colours(points), _markers(points)
    (left, right), (bottom, top) = _limits(points, at_matched["cost_at_matched"], scale)
    points["off"] = (points["kept"] < left) | ~points["lost"].between(bottom, top)
    points["off"] |= points["kept"].isna() & (points["role"] == gallery.CONTROL)
    start = _to_strip(points, left, right)
    _set_apart(points, right - left)
    columns = 2 if len(methods) <= 2 * ROWS else 3
    height = min(settings["panel_height"], (style.PAGE - AROUND) / -(-len(methods) // columns))
    figure, axes = style.panels(len(methods), columns, settings["width"], height, sharex=True, sharey=True)
    axes[0].xaxis.set_major_locator(MaxNLocator(5, integer=True))
    for number, (axis, method) in enumerate(zip(axes, methods, strict=True)):
        axis.axvline(scale.dense, color="0.7", lw=0.6, ls=(0, (1, 2)))
        _panel(axis, points[points["method"] == method], colours, markers)
        _at_matched(axis, at_matched[at_matched["method"] == method], markers)
        axis.set(xlim=(start, right), ylim=(bottom, top))
        if start < left:
            axis.axvspan(start, left, color="0.95", lw=0, zorder=0)
            ticks = MaxNLocator(5, integer=True).tick_values(left, right)
            axis.set_xticks([tick for tick in ticks if left <= tick <= right])
        axis.set_title(style.named(method, settings), loc="left")
        if number % columns == 0:
            axis.set_ylabel("accuracy lost (points)")
        if number + columns >= len(axes):
            axis.set_xlabel(scale.label)
            axis.tick_params(labelbottom=True)
    labels = {name: shown.label for name, shown in backbones.items()} | settings["labels"]
    handles = _handles(points, colours, markers, len(at_matched) > 0, labels)
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    over = "datasets" if points["datasets"].max() > 1 else "seeds"
    of = f"mean and 95 % interval over {over}" if points["low"].notna().any() else "means of 1 seed, without interval"
    note = style.missing_note(int(lost["difference"].isna().sum()), len(lost), "pairs of runs")
    note += "" if scale is KEPT else "; of no compressed network the upstream accuracy is known"
    note += bars.BEYOND if bars.mark_cut(axes) else ""
    style.title(figure, content, f"hidden cost at a glance, {of}{note}", settings)
    figure.draw_without_rendering()  # where panels are, and with them what texts must not cover
    for axis, method in zip(axes, methods, strict=True):
        _name_levels(axis, points[(points["method"] == method) & ~points["off"]], colours)
    return figure


def _colours(points: pd.DataFrame) -> dict[str, str]:
    """Return the colour of each kind of compression, and of the controls behind them."""
    compressed, controls = (
        style.order(points[points["role"] == role], "kind") for role in (COMPRESSED, gallery.CONTROL)
    )
    colours = {kind: COLOURS[index % len(COLOURS)] for index, kind in enumerate(compressed)}
    return colours | dict.fromkeys(controls, CONTROL_COLOUR)


def _markers(points: pd.DataFrame) -> dict[str, str]:
    """Return the marker of the networks that are compared with each dense one, by its name."""
    return {name: MARKERS[index % len(MARKERS)] for index, name in enumerate(style.order(points, "dense"))}


def _limits(
    points: pd.DataFrame, at_matched: pd.Series, scale: Scale
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the limits of what was kept and of what was lost (points), by the compressed networks alone."""
    upright = points[points["role"] == COMPRESSED]
    upright = upright if len(upright) else points
    left = np.nanmin([upright["kept"].min() - scale.margin, scale.dense - scale.least])
    right = np.nanmax([upright["kept"].max(), scale.dense])
    right += 0.07 * (right - left)  # room for what stands by the last point
    # an interval of two seeds runs off the axis: in full it would leave no room for the points
    most = np.nanmax([upright["lost"].abs().max(), 1.0])
    top = 1.15 * np.nanmin([np.nanmax([upright["high"].max(), most]), 3 * most])
    top = np.nanmax([top, 1.15 * at_matched.max()])
    bottom = 1.15 * np.nanmax([np.nanmin([upright["low"].min(), upright["lost"].min(), -0.1 * top]), -3 * most])
    bottom = np.nanmin([bottom, 1.15 * at_matched.min()])
    return (left, right), (bottom, top)


def _handles(points: pd.DataFrame, colours: dict, markers: dict, matched: bool, labels: dict) -> list[Line2D]:
    """Return what tells colours, markers and marks in the legend, of those that are drawn."""
    on = points[~points["off"]]

    def handle(label: str, **look: Any) -> Line2D:
        return Line2D([], [], label=label, **DOT | look)

    handles = [handle(kind, color=colour) for kind, colour in colours.items() if kind in set(on["kind"])]
    if len(markers) > 1:
        handles += [
            handle(f"against {labels.get(name, name)}", mfc="none", marker=marker) for name, marker in markers.items()
        ]
    if on["strip"].any():
        handles.append(handle("upstream accuracy unknown", mfc="none"))
    if matched:
        handles.append(handle("right edge: cost at matched upstream", **MATCHED))
    if on["partial"].any():
        handles.append(handle("cells are missing", marker=(5, 2)))
    return handles


def _panel(axis: Axes, points: pd.DataFrame, colours: dict, markers: dict) -> None:
    """Draw the networks of a method."""
    axis.axhline(0, color="black", lw=0.6)
    levels = points[points["role"] == COMPRESSED].groupby(["dense", "kind", "strip"], sort=False)
    for (_, kind, _), family in levels:
        family = family.sort_values("what", kind="stable")
        axis.plot(family["kept"], family["lost"], color=colours[kind], lw=0.6, alpha=0.6)
    for point in points[~points["off"]].itertuples():
        colour = colours[point.kind]
        ends = None if pd.isna(point.low) else [[point.lost - point.low], [point.high - point.lost]]
        face = "white" if point.strip else colour
        marks: dict[str, Any] = {"marker": markers[point.dense], "ms": 3.6, "mfc": face, "mec": colour, "mew": 0.8}
        known = None
        if not (point.strip or pd.isna(point.kept_low)):
            known = [[point.kept - point.kept_low], [point.kept_high - point.kept]]
        axis.errorbar(point.kept, point.lost, ends, known, color=colour, elinewidth=0.7, ls="", **marks)
        if point.partial:
            axis.annotate("*", (point.kept, point.lost), (-6, -2), textcoords="offset points", size=8)
        if point.role == gallery.CONTROL:
            axis.annotate(point.what, (point.kept, point.lost), (-2, -7), **NOTE, color="0.3")
    off = points[points["off"]].groupby("what", sort=False)["lost"].mean()
    off_axes = [f"{what}: {round(mean):d} lost".replace("-", "−") for what, mean in off.items()]
    axis.set_title("\n".join(off_axes), loc="right", size=7, color="0.3")
    axis.grid(lw=0.3)


def _name_levels(axis: Axes, points: pd.DataFrame, colours: dict) -> None:
    """Write by the last level of each kind of compression what it is, as colours alone do not tell it in grey, and by
    the first its level: where there is room, over no point, no other text and not the line of zero."""
    to_pixels, dot = axis.transData.transform, plt.rcParams["figure.dpi"] / 72
    taken = [text.get_window_extent() for text in axis.texts]
    marks = dict(zip(points.index, to_pixels(points[["kept", "lost"]]), strict=True))
    marked = {key: Bbox([place - CLEAR * dot, place + CLEAR * dot]) for key, place in marks.items()}
    middle, zero = np.mean(axis.get_xlim()), to_pixels((0, 0))[1]
    taken.append(Bbox([(axis.bbox.x0, zero), (axis.bbox.x1, zero + dot)]))
    levels = points[points["role"] == COMPRESSED].groupby(["dense", "kind", "strip"], sort=False)
    families = [family.sort_values("what", kind="stable") for _, family in levels]
    named = [(family.iloc[-1], f"{family['kind'].iloc[0]} {family['level'].iloc[-1]}") for family in families]
    named.sort(key=lambda one: one[0]["strip"])  # what stands on the axis has its place first
    named += [(family.iloc[0], family["level"].iloc[0]) for family in families if len(family) > 1]
    for one, text in named:
        far = [] if one["strip"] else FAR
        inwards = 1 if one["kept"] > middle else -1
        for x, y in [*NEAR, *far] if text else []:
            point, place, side = one[["kept", "lost"]], (x * inwards, y), "right" if x * inwards < 0 else "left"
            note = axis.annotate(text.strip(), point, place, ha=side, **NOTE)
            box = note.get_window_extent()
            inside = axis.bbox.x0 <= box.x0 and box.x1 <= axis.bbox.x1
            inside = inside and axis.bbox.y0 <= box.y0 and box.y1 <= axis.bbox.y1
            others = [other for key, other in marked.items() if key != one.name]
            if inside and not any(box.overlaps(other) for other in [*taken, *others]):
                taken.append(box)
                if (x, y) in FAR:
                    axis.annotate("", point, place, arrowprops=LEADER | {"color": colours[one["kind"]]}, **NOTE)
                break
            note.remove()


def _at_matched(axis: Axes, costs: pd.DataFrame, markers: dict) -> None:
    """Draw costs at matched upstream accuracy on the right edge, beside what stands where all is kept."""
    for place, row in enumerate(costs.itertuples()):
        ends = [[row.cost_at_matched - row.low], [row.high - row.cost_at_matched]]
        look = MATCHED | {"marker": markers[row.dense], "clip_on": False, "transform": axis.get_yaxis_transform()}
        axis.errorbar(1 + 0.03 * place, row.cost_at_matched, ends, **look, elinewidth=0.9)


def _to_strip(points: pd.DataFrame, left: float, right: float) -> float:
    """Give the points whose upstream accuracy is not known (`strip`) a place left of the axis, in their order, and
    return where it begins."""
    points["strip"] = points["kept"].isna() & ~points["off"]
    names = style.order(points[points["strip"]], "backbone")
    step = 0.025 * (right - left)
    places = {name: left - step * (len(names) - index) for index, name in enumerate(names)}
    points.loc[points["strip"], "kept"] = points["backbone"].map(places)
    return left - step * (len(names) + 1) if names else left


def _set_apart(points: pd.DataFrame, width: float) -> None:
    """Move networks that kept the same of their upstream accuracy a little to either side, each with its interval, so
    that each is seen: the caption tells it."""
    names = points[~points["off"] & ~points["strip"]].drop_duplicates("backbone").set_index("backbone")["kept"]
    same = names.groupby(names)
    beside = same.cumcount() - (same.transform("size") - 1) / 2
    moved = points["backbone"].map(APART * width * beside).fillna(0)
    ends = ["kept", "kept_low", "kept_high"]
    points[ends] = points[ends].add(moved, axis=0)


def _points(runs: pd.DataFrame, lost: pd.DataFrame, kept: pd.DataFrame, backbones: dict) -> pd.DataFrame:
    """Return a row a network and method: what `_kept` tells, `lost`, `low`, `high`, whether it is `partial` (pairs of
    the study are missing), and how it is drawn."""
    stated = runs.drop_duplicates("backbone").set_index("backbone")
    rows = []
    for (name, dense, method), of_study in lost.groupby(["backbone", "dense", "method"], sort=False):
        pairs = of_study.dropna(subset="difference")
        if pairs.empty:
            continue
        backbone, role = stated.loc[name], backbones[name].role
        effect, bounds, _ = pooled(pairs, fixed=False)
        sparsity = backbones[name].sparsity or 0.0
        control = (
            CONTROLS[backbone["control"]].title if isinstance(backbone["control"], str) else backbones[name].label
        )
        rows.append(
            {
                **{"backbone": name, "dense": dense, "method": method, "role": role},
                "kind": "controls" if role == gallery.CONTROL else last_applied(backbone["compression"]).title,
                "what": control if role == gallery.CONTROL else sparsity,
                "level": f"{100 * sparsity:.0f} %" if sparsity else backbones[name].label * backbones[name].quantised,
                **{"lost": effect, "datasets": pairs["dataset"].nunique()},
                "partial": len(pairs) < len(of_study),
                **dict(zip(("low", "high"), bounds or (np.nan, np.nan), strict=True)),
            }
        )
    columns = [
        "backbone",
        "dense",
        "method",
        "role",
        "kind",
        "what",
        "level",
        "lost",
        "datasets",
        "partial",
        "low",
        "high",
    ]
    return pd.DataFrame(rows, columns=columns).astype({"partial": bool}).join(kept, on="backbone")


def _kept(runs: pd.DataFrame, upstream: pd.DataFrame, compressed: list[str]) -> tuple[pd.DataFrame, Scale]:
    """Return what each network kept of its dense one's upstream accuracy, and on which scale.

    It is in % of the dense one's (see `upstream.reached`) and, where that was measured on photos, with its interval,
    the dense one's taken as exact. Where it is known of no compressed network, it is the number of the verification's
    photos that a network knows, more than the dense one: too few for a percentage, and never mixed with it.

    Returns:
        By backbone `kept`, `kept_low` and `kept_high`, NaN where it is not known.
    """
    dense = runs.drop_duplicates("backbone").set_index("backbone")["dense"].dropna()
    known, photos = reached(upstream, compressed), upstream.set_index("backbone")
    of_dense = known["top1"].reindex(dense).set_axis(dense.index)
    kept = 100 * known.reindex(dense.index)[["top1", "low", "high"]].div(of_dense, axis=0)
    kept = kept.set_axis(["kept", "kept_low", "kept_high"], axis=1)
    more = photos["photos"].reindex(dense.index) - photos["photos"].reindex(dense).set_axis(dense.index)
    if not compressed or kept["kept"].reindex(compressed).notna().any() or more.reindex(compressed).isna().all():
        return kept, KEPT
    shown = photos["photos_shown"].reindex(compressed).max()
    label = f"ImageNet photos of {shown:.0f}, minus dense"
    return kept.assign(kept=more, kept_low=np.nan, kept_high=np.nan), Scale(label, 0.0, 2.0, 0.5)
