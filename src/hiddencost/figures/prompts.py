"""The learned prompts, as images."""

import pandas as pd
from matplotlib.figure import Figure

from hiddencost.figures import style
from hiddencost.methods.registry import METHODS
from hiddencost.results import gallery
from hiddencost.results.gallery import StudyFigure
from hiddencost.runs.packfile import AXES


def draw(tables: dict, content: StudyFigure, settings: dict) -> Figure:
    """A row a dataset, the networks side by side under each method; hatched where there is no prompt.

    Args:
        tables: `summary`, and `prompts`: arrays uint8 [3, S, S], as `learned.Learned` has them.
        content: the figure's backbones and datasets.
        settings: the study's `figures`, see `draw.draw`.
    """
    prompts, backbones = tables["prompts"], content.backbones
    keys = [key.split("/") for key in prompts if key != "gain"]
    ran = style.in_order(
        pd.DataFrame(keys, columns=AXES), list(content.backbones), content.datasets, settings["methods"]
    )
    kept = {tuple(run[:3]): run for run in gallery.runs_shown(ran, backbones)}
    short = style.short_cells(tables["summary"], pd.DataFrame(list(kept.values()), columns=AXES))
    prompting = [name for name in settings["methods"] if METHODS[name].prompts]
    methods = [name for name in prompting if name in set(tables["summary"]["method"])] or prompting
    datasets = content.datasets
    names = gallery.dense_and_most_compressed(backbones, ran["backbone"])
    columns = len(methods) * len(names)
    side = min(1.5, settings["width"] / (columns + 0.7))
    width = max(3.4, side * (columns + 0.7))
    figure, axes = style.panels(len(datasets) * columns, columns, width, side)
    for index, axis in enumerate(axes):
        dataset, method = datasets[index // columns], methods[index % columns // len(names)]
        name = names[index % len(names)]
        run = kept.get((name, dataset, method))
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
        if run is None:
            axis.patch.set(**style.NOT_RUN)
            axis.set_box_aspect(1)
        else:
            axis.imshow(prompts["/".join(map(str, run))].transpose(1, 2, 0))
        if index < columns:
            axis.set_title(f"{style.named(method, settings)}\n{backbones[name].label}", size=6.5, pad=3)
        if index % columns == 0:
            shots_of_row = {shots for _, of_run, _, shots, _ in kept.values() if of_run == dataset}
            of_row = short[short["dataset"] == dataset]
            note = ", ".join(style.shots_label(shots, of_row) for shots in sorted(shots_of_row)) or "not run"
            axis.set_ylabel(f"{style.named(dataset, settings)}\n{note}", size=6.5, labelpad=3)
    gain = float(prompts.get("gain", 1))
    contrast = f", contrast of the border × {gain:g}" if gain > 1 else ""
    wanted = gallery.dense_and_most_compressed(backbones, backbones)  # with results of all
    count, there = len(wanted) * len(methods) * len(datasets), sum(name in wanted for name, *_ in kept)
    note = contrast + style.missing_note(count - there, count, "prompts") + style.short_note(short)
    style.title(figure, content, f"learned prompts around an image of the training set, one seed{note}", settings)
    return figure
