"""The kinds of figures, by name: what each reads, when a study has it, its caption, and what draws it.

The workflow reads this before any job does, and so it imports neither Matplotlib nor pandas: the function that draws
a figure is named here, and imported when it draws. A new kind is a module with such a function, and its entry here.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from types import MappingProxyType

from hiddencost.methods.registry import METHODS, Method
from hiddencost.results import gallery
from hiddencost.results.gallery import StudyFigure


@dataclass(frozen=True)
class FigureKind:
    """A kind of figure.

    Attributes:
        drawn_by: "module:function" of what draws it: of the `tables` that it reads (by name, a pandas DataFrame or
            a dict of arrays, with the rows of the figure's datasets and backbones alone), a `StudyFigure` and the
            study's `figures` settings (see `figures.draw`) it returns a Matplotlib figure.
        tables: names of the study's tables that it reads.
        caption: what its reader is told. It stands apart from the code that draws: another word redraws nothing.
            `{metric}` in it is what the study's `figures.metric` is called, as `{Metric}` in the title; `{dark}` says
            what the black before it is on a dark page.
        shows: whether it shows a method; a study without such a method does not have it.
        compares: it shows what networks cost against a dense one; a group without one does not have it.
        a_page: how many datasets, each with so many networks of the group, stand on one printed page; of more there
            are several figures. None: all stand on one.
        columns: how many columns of a page a method takes, of so many numbers of shots.
        abreast: columns that a page has room for; methods of more stand in several figures. None: in one.
        of_all: there is one, of all backbones, instead of one a group; it, too, compares.
        analysis: that a study has to ask for to have it; "": none.
        title: what the report calls it; "" as it is called itself.
    """

    drawn_by: str
    tables: tuple[str, ...]
    caption: str
    shows: Callable[[Method], bool] = lambda method: True
    compares: bool = False
    a_page: Callable[[int], int] | None = None
    columns: Callable[[Method, int], int] = lambda method, shots: 1
    abreast: int | None = None
    of_all: bool = False
    analysis: str = ""
    title: str = ""

    @property
    def module(self) -> str:
        """The module that draws it, whose code the figure stands on."""
        return self.drawn_by.partition(":")[0]


BARS = (
    "Bars are the 95 % t interval of that mean, an arrow head where one goes on beyond the axes; of two seeds they "
    "span the two."
)
PAIRED_BARS = BARS.replace("95 % t interval of that mean", "95 % interval of that mean, as the tables have it")
LINES = (
    "Black{dark}: the dense network. Broken lines in colours, each with a marker of its own: the compressed ones. A "
    "line is broken where a cell was not run. "
)
MAPS = (
    "mean of the seed-paired differences, in points, over networks and shots, a map a method. The first row of a "
    "dataset is the dense network itself, in %. One scale of colours serves all maps of the study: it ends at the "
    "largest difference of a compressed network; controls, below the gap, may lie beyond it. Bold, or a dot where "
    "there is no room for numbers (a dash below zero): the 95 % interval over seeds excludes zero. That is not "
    "corrected for the number of cells: of as many without any difference one in twenty would be marked. Hatched: "
    "no result to compare."
)
ROWS = 61  # of a map, on a page
CELLS = 35  # that stand abreast in it, with a number each
PANELS = 5  # that stand abreast


def _cells(method: Method, shots: int) -> int:
    return max(shots if method.trains else 1, gallery.MAP_CELLS)


def _of_training(method: Method, shots: int) -> int:
    """Methods that do not train are lines in the panels of the others, where these have several numbers of shots."""
    return 1 if method.trains or shots == 1 else 0


FIGURES = {
    "cost": FigureKind(
        "hiddencost.figures.accuracy:draw_cost",
        ("summary",),
        "Hidden cost: test {metric} of the dense network minus that of a compressed one (the other way round where "
        "less is better), in points, against the number of training images per class; above zero, compression costs. "
        "A row a dataset, a column a method, one scale for all panels. Points are means of the seed-paired "
        f"differences. {PAIRED_BARS} Grey: an uncompressed network of other weights.",
        compares=True,
        a_page=lambda networks: 8,
        columns=_of_training,
        abreast=PANELS,
        title="Hidden cost against shots",
    ),
    "accuracy": FigureKind(
        "hiddencost.figures.accuracy:draw",
        ("summary",),
        "Test {metric} against the number of training images per class. A row a dataset, a column a method. "
        f"{LINES}Grey: controls. Points are means over seeds. {BARS} The dotted horizontal is the accuracy of chance;"
        " thin dashed horizontals are of zero-shot classification, which needs no training images.",
        a_page=lambda networks: 8,
        columns=_of_training,
        abreast=PANELS,
        title="{Metric} against shots",
    ),
    "heatmap": FigureKind(
        "hiddencost.figures.heatmap:draw_metric",
        ("summary",),
        "Hidden cost: test {metric} of the dense network minus that of another, or the other way round where less is "
        f"better, {MAPS} Colours right of zero on the "
        "scale: compression costs; left of it: it helps.",
        compares=True,
        a_page=lambda networks: max(1, int(ROWS / (networks + 0.6))),
        columns=_cells,
        abreast=CELLS,
        title="Hidden cost, every level",
    ),
    "calibration": FigureKind(
        "hiddencost.figures.heatmap:draw_calibration",
        ("summary",),
        "What compression does to calibration: expected calibration error (15 bins) of a network minus that of "
        f"the dense one, {MAPS} Colours right of zero on the scale: calibration is worse; left of it: better.",
        compares=True,
        a_page=lambda networks: max(1, int(ROWS / (networks + 0.6))),
        columns=_cells,
        abreast=CELLS,
        title="Calibration, every level",
    ),
    "reliability": FigureKind(
        "hiddencost.figures.reliability:draw",
        ("runs", "bins"),
        "Calibration gap at the largest number of shots: accuracy minus confidence, in points, in 15 bins of "
        "confidence of equal width, over the softmax of the mapped logits, all seeds pooled. Below zero the "
        "network is overconfident. A row a dataset, a column a method; black{dark}: the dense network, colours: all "
        "compressed ones. A point's area is the share of test images in its bin; bins with less than 1 % of the "
        "images are not shown.",
        a_page=lambda networks: 8,
        abreast=PANELS,
        title="Accuracy minus confidence",
    ),
    "mapping": FigureKind(
        "hiddencost.figures.mapping:draw",
        ("mappings", "examples", "summary"),
        "Which of its own classes a network has stand for each target class (of a mapping of weights, the class that "
        "weighs most), the dense one and the most compressed"
        " one with a result, at the largest number of shots, and the first seed, that both ran. Shown are, of the "
        "target classes with an example image (of all, where there is none), those that the two map otherwise in "
        "the most seeds, and of these those whose source varies least between seeds of the dense one. Grey where "
        "both chose the same. The shares are of all target classes, means over seeds: where both networks chose "
        "alike and, to hold that against, where two seeds of the dense network did.",
        shows=lambda method: method.maps_by_predictions,
        title="Label mappings",
    ),
    "movement": FigureKind(
        "hiddencost.figures.movement:draw",
        ("remapped", "summary"),
        "How a label mapping that is redrawn, or learned, moves: the share of target classes that were mapped "
        "otherwise than in the epoch before (of a mapping of weights, whose largest weight is of another source class"
        "), mean over seeds, at the largest number of shots with a result. Bands are the 95 % t "
        "interval of that mean; of two seeds they span the two.",
        shows=lambda method: method.moves_mapping,
        title="How the label mapping moves",
    ),
    "prompts": FigureKind(
        "hiddencost.figures.prompts:draw",
        ("prompts", "summary"),
        "What was learned: the prompt (the border) around an image of the training set, dense beside the most "
        "compressed network with a result, at the largest number of shots, and the first seed, that both ran. Grey"
        " is where training began; the contrast of all borders is raised by the factor that the title names.",
        shows=lambda method: method.prompts,
        abreast=PANELS,
        title="Learned prompts",
    ),
    "glance": FigureKind(
        "hiddencost.figures.glance:draw",
        ("runs", "upstream", "matched"),
        "Hidden cost at a glance: what a network kept of the dense one's upstream accuracy (top-1, as published, as"
        " measured after training, or on the photos of the verification, with its 95 % interval) against the "
        "accuracy that it lost downstream (dense minus network, in points), a panel a method. The dense one is that "
        "of the same training recipe, where the study has it. "
        "A point is the mean over datasets, shots and seeds; bars are its 95 % interval"
        " over datasets, or over seeds where there is one dataset (see the claims). Networks that kept the same are "
        "set a little apart, so that each is seen. Networks whose top-1 nobody "
        "knows stand, open, in the strip on the left, in their order (of a study that knows no top-1 the axis is "
        "the number of the verification's photos, which are few and easy). The mark on the right edge: what "
        "compression costs at matched upstream accuracy, where the line through all networks' losses meets 100 %, "
        "with its interval over networks and seeds (see the tables). A line joins the levels of a kind of "
        "compression, which its colour tells; numbers are the sparsity of the first and of the last. Controls that "
        "lie off the axes are told over the panel. A star: cells of it are missing, so that its mean is not over the "
        "same as the others'.",
        compares=True,
        of_all=True,
        title="Hidden cost at a glance",
    ),
    "split": FigureKind(
        "hiddencost.figures.split:draw",
        ("swaps", "runs"),
        "What the hidden cost is made of, by swapping parts between the dense network and a compressed one, on test"
        " images, nothing trained: in points, means over datasets and shots. A column a method. Above: the cost and "
        "its Shapley values, what it changes when the network, its prompt or its label mapping becomes the dense "
        "one's, mean over all orders; the three add up to the cost. Below: what the compressed network gains under "
        "the dense one's mapping, prompt or both (filled), and what the dense network loses under the compressed "
        "one's (open). Bars are 95 % intervals over datasets and seeds (see the claims). A prompt and a mapping were "
        "learned on one network: under the other they may do worse than either's own, and a gain is below zero. "
        "Controls are in the tables alone.",
        shows=lambda method: method.prompts,
        compares=True,
        abreast=PANELS,
        analysis="split",
        title="What the cost is made of",
    ),
    "shift": FigureKind(
        "hiddencost.figures.shift:draw",
        ("shift_cost",),
        "What compression costs on corrupted test images, with the prompts, mappings and probes that were learned on"
        " clean ones: accuracy of the dense network minus that of a compressed one, in points, against the severity "
        "of the corruptions (of arXiv 1903.12261), at the largest number of shots. A row a dataset, a column a "
        f"method. Points are means over corruptions and of the seed-paired differences. {PAIRED_BARS} Above zero, "
        "compression costs; a line that rises says that it costs more where images are corrupted.",
        shows=lambda method: not method.changes_weights,
        compares=True,
        a_page=lambda networks: 8,
        abreast=PANELS,
        analysis="shift",
        title="Hidden cost on corrupted images",
    ),
    "why": FigureKind(
        "hiddencost.figures.why:draw",
        ("measures", "runs"),
        "What goes with the hidden cost: rank correlation (Spearman) of a measure, taken on test images, with the "
        "accuracy that is lost, within a dataset over its compressed networks and numbers of shots. A measure of one"
        " network is the compressed one's minus the dense one's. A column a method. Points are means over datasets "
        "and seeds, bars their 95 % interval over these; grey ticks are single datasets. Right of zero, more of it "
        "goes with more cost. What goes together need not be the cause, and of as many measures some go with the "
        "cost by chance. Controls are left out.",
        shows=lambda method: method.prompts,
        compares=True,
        of_all=True,
        analysis="why",
        title="What goes with the cost",
    ),
}


def figures_of_study(
    backbones: Mapping[str, dict],
    datasets: Sequence[str],
    methods: Sequence[str],
    labels: Mapping[str, str],
    checkpoints: Mapping[str, str] = MappingProxyType({}),
    analyses: Collection[str] = (),
    shots: int = 1,
) -> dict[str, StudyFigure]:
    """Return the figures that a study has, by name.

    Args:
        backbones: by name, in the order of the figures, what the study states of each: `checkpoint`, `compression`,
            `control`, `sparsity_declared` and `dense` (the name of the network to compare with).
        datasets: names, in the order of the figures.
        methods: names of those that are shown.
        labels: what to write instead of names of backbones.
        checkpoints: what to write instead of names of checkpoints.
        analyses: names of those that the study asks for.
        shots: how many numbers of them are shown.
    """
    figures: dict[str, StudyFigure] = {}
    kinds = {
        name: kind
        for name, kind in FIGURES.items()
        if any(kind.shows(METHODS[method]) for method in methods) and kind.analysis in ("", *analyses)
    }
    if any(stated["dense"] not in (name, None) for name, stated in backbones.items()):
        shown = gallery.describe_backbones(backbones, None, labels, checkpoints)
        counterparts = {stated[which] for stated in backbones.values() for which in ("dense", "recipe_dense")}
        references = counterparts - {None, *backbones}
        for name, kind in kinds.items():
            if kind.of_all:
                figure = StudyFigure(name, kind.drawn_by, shown, list(datasets), sorted(references))
                figures[gallery.free_name(name, figures)] = figure
    for suffix, (dense, names) in gallery.group_backbones(backbones).items():
        shown = gallery.describe_backbones({name: backbones[name] for name in names}, dense, labels, checkpoints)
        origin = backbones[dense]["checkpoint"] if dense and dense in backbones else ""
        for name, kind in kinds.items():
            if kind.of_all or (kind.compares and not dense):
                continue
            figure = StudyFigure(name, kind.drawn_by, shown, list(datasets), title=checkpoints.get(origin, origin))
            rows = _pages(datasets, kind.a_page and kind.a_page(len(shown)))
            columns = _abreast(kind, [method for method in methods if kind.shows(METHODS[method])], shots)
            pages = [replace(figure, datasets=page, methods=part) for part in columns for page in rows]
            for number, page in enumerate(pages, 1):
                title = "-".join([name, *suffix, *([f"page{number}"] if len(pages) > 1 else [])])
                figures[gallery.free_name(title, figures)] = page
    return figures


def _abreast(kind: FigureKind, methods: list[str], shots: int) -> list[list[str]]:
    """Return methods in as few parts, of about one length, as a page each has room for; an empty one, that stands for
    all, where one page does."""
    widths = {method: kind.columns(METHODS[method], shots) for method in methods}
    if not kind.abreast or sum(widths.values()) <= kind.abreast:
        return [[]]
    for pages in range(2, len(methods) + 1):
        ends = [round(page * len(methods) / pages) for page in range(pages + 1)]
        parts = [methods[start:end] for start, end in pairwise(ends)]
        if all(sum(widths[method] for method in part) <= kind.abreast for part in parts):
            break
    return parts


def _pages(datasets: Sequence[str], most: int | None) -> list[list[str]]:
    """Return datasets in as few parts of at most so many as there can be, of about one length."""
    parts = -(-len(datasets) // (most or len(datasets)))
    length = -(-len(datasets) // parts)
    return [list(datasets[start : start + length]) for start in range(0, len(datasets), length)]
