"""The kinds of figures, by name: what each reads, when a study has it, its caption, and what draws it.

The workflow reads this before any job does, and so it imports neither Matplotlib nor pandas: the function that draws
a figure is named here, and imported when it draws. A new kind is a module with such a function, and its entry here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

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
        shows: whether it shows a method; a study without such a method does not have it.
        compares: it shows what networks cost against a dense one; a group without one does not have it.
        by_dataset: it is also drawn dataset by dataset, where a group has more compressed networks than fit one map.
        of_all: there is one, of all backbones, instead of one a group; it, too, compares.
    """

    drawn_by: str
    tables: tuple[str, ...]
    caption: str
    shows: Callable[[Method], bool] = lambda method: True
    compares: bool = False
    by_dataset: bool = False
    of_all: bool = False

    @property
    def module(self) -> str:
        """The module that draws it, whose code the figure stands on."""
        return self.drawn_by.partition(":")[0]


BANDS = "Bands are the 95 % t interval of that mean; of two seeds they just span the two."
FIGURES = {
    "accuracy": FigureKind(
        "hiddencost.figures.accuracy:draw",
        ("summary",),
        "Test accuracy against the number of training images per class. Colours are methods; solid lines are the "
        "dense network, broken ones with other markers the compressed, thin dotted ones the controls. Lines are "
        f"means over seeds. {BANDS} The thin dotted horizontal is chance. A line is broken where a cell was not "
        "run.",
    ),
    "heatmap": FigureKind(
        "hiddencost.figures.heatmap:draw_accuracy",
        ("summary",),
        "Hidden cost: accuracy of the dense network minus that of another, in points, mean of the seed-paired "
        "differences, over networks and shots, a map a method (of more than five levels of compression, five "
        "where there are many datasets). Beside them the curves of the dense network (solid) and the most "
        f"compressed one (dashed), means over seeds. {BANDS} Red: compression costs; blue: it helps. A dot marks "
        "a cell whose 95 % t interval over seeds excludes zero (not corrected for the number of cells). 98 % of "
        "the cells of compressed networks lie within the scale; controls, below the line, may lie beyond it. A "
        "hatched cell has no result to compare.",
        compares=True,
        by_dataset=True,
    ),
    "calibration": FigureKind(
        "hiddencost.figures.heatmap:draw_calibration",
        ("summary",),
        "What compression does to calibration: expected calibration error (15 bins) of a network minus that of "
        "the dense one, in points, mean of the seed-paired differences, over networks and shots, a map a method "
        "(of more than five levels of compression, five where there are many datasets). Beside them the ECE of "
        f"the dense network (solid) and the most compressed one (dashed), means over seeds. {BANDS} Red: "
        "calibration is worse; blue: better. A dot marks a cell whose 95 % t interval over seeds excludes zero "
        "(not corrected for the number of cells). 98 % of the cells of compressed networks lie within the scale; "
        "controls, below the line, may lie beyond it. A hatched cell has no result to compare.",
        compares=True,
        by_dataset=True,
    ),
    "reliability": FigureKind(
        "hiddencost.figures.reliability:draw",
        ("runs", "bins"),
        "Reliability diagrams at the study's largest number of shots: accuracy against confidence in 15 bins of "
        "equal width, over the softmax of the mapped logits, all seeds pooled. A point's area is the share of "
        "test images in its bin; bins with less than 1 % of the images are not joined to the line. Under the "
        "diagonal the network is overconfident. The numbers over a panel are the ECE, mean over seeds. Of many "
        "datasets: the dense network and the most compressed one, and a quantised one where there is one.",
    ),
    "mapping": FigureKind(
        "hiddencost.figures.mapping:draw",
        ("mappings", "examples", "summary"),
        "Which of its own classes a network has stand for each target class, the dense one and the most "
        "compressed one with a result: the first classes in the dataset's order, at the largest number of shots, "
        "and the first seed, that both ran. Grey where both chose the same. The shares are of all target "
        "classes, means over seeds: where both networks chose alike and, to hold that against, where two seeds "
        "of the dense network did.",
        shows=lambda method: method.maps_by_predictions,
    ),
    "movement": FigureKind(
        "hiddencost.figures.movement:draw",
        ("remapped", "summary"),
        "How a label mapping that is redrawn moves: the share of target classes that were mapped otherwise than "
        f"in the epoch before, mean over seeds, at the largest number of shots with a result. {BANDS}",
        shows=lambda method: method.redraws,
    ),
    "prompts": FigureKind(
        "hiddencost.figures.prompts:draw",
        ("prompts", "summary"),
        "What was learned: the prompt (the border) around an image of the training set, dense beside the most "
        "compressed network with a result, at the largest number of shots, and the first seed, that both ran. "
        "Grey is where training began; the contrast of all borders is raised by the factor that the title names.",
        shows=lambda method: method.prompts,
    ),
    "glance": FigureKind(
        "hiddencost.figures.glance:draw",
        ("runs", "upstream", "matched"),
        "Hidden cost at a glance: what a network kept of the dense one's upstream accuracy against the accuracy "
        "that it lost downstream (dense minus network, in points), a panel a method. The dense one is that of the "
        "same training recipe, where the study has it. A point is the mean over "
        "datasets, shots and seeds; bars are its 95 % interval over datasets, or over seeds where there is one "
        "dataset (see the claims). Filled: upstream top-1, as published or as measured after training; open: the "
        "images of the verification, which are few and easy. A diamond: what compression costs at matched "
        "upstream accuracy, where the line through all networks' losses meets 100 %, with its interval over "
        "networks and seeds (see the tables). A line joins the levels of a kind of compression; the number is "
        "the sparsity of the last. Controls that lie off the axes are told over the panel. A star: cells of it "
        "are missing, so that its mean is not over the same as the others'.",
        compares=True,
        of_all=True,
    ),
}


def figures_of_study(
    backbones: Mapping[str, dict], datasets: Sequence[str], methods: Sequence[str], labels: Mapping[str, str]
) -> dict[str, StudyFigure]:
    """Return the figures that a study has, by name.

    Args:
        backbones: by name, in the order of the figures, what the study states of each: `checkpoint`, `compression`,
            `control`, `sparsity_declared` and `dense` (the name of the network to compare with).
        datasets: names, in the order of the figures.
        methods: names of the study's methods.
        labels: what to write instead of names.
    """
    figures: dict[str, StudyFigure] = {}
    kinds = {name: kind for name, kind in FIGURES.items() if any(kind.shows(METHODS[method]) for method in methods)}
    for suffix, (dense, names) in gallery.group_backbones(backbones).items():
        shown = gallery.describe_backbones({name: backbones[name] for name in names}, dense, labels)
        # where levels are many, their maps need the room of a figure for each dataset, too
        many = len(datasets) > 1 and len(gallery.names_in_role(shown, gallery.COMPRESSED)) > gallery.MAX_CURVES
        for name, kind in kinds.items():
            if kind.of_all or (kind.compares and not dense):
                continue
            figure = StudyFigure(name, kind.drawn_by, shown, list(datasets))
            figures[gallery.free_name("-".join([name, *suffix]), figures)] = figure
            for dataset in datasets if kind.by_dataset and many else []:
                title = "-".join([name, *suffix, dataset])
                figures[gallery.free_name(title, figures)] = replace(figure, datasets=[dataset])
    if any(stated["dense"] not in (name, None) for name, stated in backbones.items()):
        shown = gallery.describe_backbones(backbones, None, labels)
        counterparts = {stated[which] for stated in backbones.values() for which in ("dense", "recipe_dense")}
        references = counterparts - {None, *backbones}
        for name, kind in kinds.items():
            if kind.of_all:
                figure = StudyFigure(name, kind.drawn_by, shown, list(datasets), sorted(references))
                figures[gallery.free_name(name, figures)] = figure
    return figures
