"""The report's charts, as Vega-Lite specifications: one panel each, for which the page names the data.

A panel is drawn as often as there are cells to show (a data set, a method, a backbone), so that the page lays panels
out by its own width and draws those alone that are in view.
"""

from typing import Any

import altair as alt
import numpy as np

from hiddencost.results.gallery import COMPRESSED, CONTROL, DENSE

HEIGHT = 210
FEW = 0.01  # a bin with a smaller share of the test images is not shown, as in the printed figures
Chart = alt.LayerChart | alt.FacetChart  # what alt.layer returns, by its types
DASHES: dict[str, list[float]] = {DENSE: [1, 0], COMPRESSED: [5, 3], CONTROL: [1.5, 2.5]}
SHAPES = {  # as in the printed figures, whose controls have none
    DENSE: ["circle", "cross"],
    COMPRESSED: ["square", "diamond", "triangle-up", "triangle-down"],
    CONTROL: ["triangle-right", "triangle-left"],
}
FONT = 'system-ui, "Segoe UI", "Liberation Sans", Arial, sans-serif'
AXIS = {"labelFontSize": 11, "titleFontSize": 11, "titleFontWeight": "normal", "domainColor": "#666"}


def panels(
    methods: list[str], colours: dict[str, str], palette: list[str], gaps: tuple[float, float]
) -> dict[str, dict]:
    """Return the specification of a panel of each kind.

    Args:
        methods: the study's, in its order.
        colours: #rrggbb of each method.
        palette: #rrggbb of costs, from the lowest to the highest.
        gaps: the least and the largest calibration gap that is shown (points), NaN where there is none.

    Returns:
        By kind, each for the rows that the page gives it, and for the numbers of shots, in their order, that it makes
        the domain of each scale `x`: `curves`, of cells (backbone, kind, shape, colour, shots;
        value, low, high), and `chance` (value), a line; `costs`, of cells (label, shots, value, text, note, strong;
        `share`, -1 to 1, of the colours' range, and `ink`, of the text); `reliability`, of bins (method, bin,
        confidence, accuracy, share).
    """
    colour = alt.Color(
        "method:N",
        scale=alt.Scale(domain=methods, range=[colours[method] for method in methods]),
        legend=None,
    )
    return {
        "curves": _panel(_curves()),
        "costs": _panel(_costs(palette)),
        "reliability": _panel(_reliability(colour, gaps)),
    }


def _panel(chart: Chart) -> dict:
    look: dict[str, Any] = {"font": FONT, "background": "transparent", "view": {"stroke": None}, "axis": AXIS}
    return chart.properties(width="container", height=HEIGHT).configure(**look).to_dict()


def _axis_of_shots() -> alt.X:
    axis = alt.Axis(labelAngle=0, grid=False, title="shots (images per class)")
    return alt.X("shots:O", axis=axis)


def _curves() -> Chart:
    x = _axis_of_shots()
    y = alt.Y("value:Q", axis=alt.Axis(gridOpacity=0.4, tickCount=5), scale=alt.Scale(zero=True, nice=True))
    cells = alt.Chart(alt.NamedData("cells"))
    common = {"x": x, "color": alt.Color("colour:N", scale=None), "detail": alt.Detail("backbone:N")}
    tooltip = [
        alt.Tooltip("label:N", title="backbone"),
        alt.Tooltip("methodLabel:N", title="method"),
        alt.Tooltip("shots:O", title="shots"),
        alt.Tooltip("value:Q", title="mean", format=".4~g"),
        alt.Tooltip("std:Q", title="standard deviation", format=".3~g"),
        alt.Tooltip("seeds:Q", title="seeds"),
    ]
    dash = alt.StrokeDash("kind:N", scale=alt.Scale(domain=list(DASHES), range=list(DASHES.values())), legend=None)
    shape = alt.Shape("shape:N", scale=None)
    chance = alt.Chart(alt.NamedData("chance")).mark_rule(color="#000", strokeDash=[1, 3])
    return alt.layer(
        chance.encode(y=alt.Y("value:Q")),
        cells.mark_area(opacity=0.13).encode(y=alt.Y("low:Q"), y2="high:Q", **common),
        cells.mark_line(strokeWidth=1.6).encode(y=y, strokeDash=dash, **common),
        cells.mark_point(size=42, filled=True, opacity=1).encode(y=y, shape=shape, tooltip=tooltip, **common),
    )


def _costs(palette: list[str]) -> Chart:
    cells = alt.Chart(alt.NamedData("cells"))
    scale = alt.Scale(range=palette, domain=[-1, 1], interpolate="rgb", clamp=True)
    axis = alt.Axis(title=None, labelLimit=150, ticks=False, domain=False)
    encoding = {
        "x": _axis_of_shots(),
        "y": alt.Y("label:N", sort=None, axis=axis),
        "tooltip": [
            alt.Tooltip("label:N", title="backbone"),
            alt.Tooltip("methodLabel:N", title="method"),
            alt.Tooltip("shots:O", title="shots"),
            alt.Tooltip("note:N", title="cost"),
            alt.Tooltip("seeds:Q", title="seed pairs"),
        ],
    }
    ran, gap = cells.transform_filter("isValid(datum.value)"), cells.transform_filter("!isValid(datum.value)")
    strong, weak = ran.transform_filter("datum.strong"), ran.transform_filter("!datum.strong")
    number = {"text": "text:N", "color": alt.Color("ink:N", scale=None), **encoding}
    return alt.layer(
        ran.mark_rect(stroke="#fff").encode(color=alt.Color("share:Q", scale=scale, legend=None), **encoding),
        weak.mark_text(fontSize=10).encode(**number),
        strong.mark_text(fontSize=10.5, fontWeight="bold").encode(**number),
        gap.mark_rect(fill="#e6e6e6", stroke="#fff").encode(**encoding),
        gap.mark_text(text="–", color="#555").encode(**encoding),
    ).resolve_scale(color="independent")


def _reliability(colour: alt.Color, gaps: tuple[float, float]) -> Chart:
    bins = alt.Chart(alt.NamedData("bins")).transform_calculate(
        gap="100 * (datum.accuracy - datum.confidence)", sure="100 * datum.confidence", right="100 * datum.accuracy"
    )
    bins = bins.transform_filter(f"datum.share >= {FEW}")
    unit = alt.Scale(domain=[0, 100], nice=False)
    x = alt.X("sure:Q", scale=unit, axis=alt.Axis(values=[0, 50, 100], grid=False, title="confidence (%)"))
    low, high = (float(np.nan_to_num(gap)) for gap in gaps)
    points = alt.Scale(domain=[min(low, -5.0), max(high, 5.0)])  # of all panels, so that they compare
    axis = alt.Axis(gridOpacity=0.4, tickCount=5, title="accuracy minus confidence (points)")
    y = alt.Y("gap:Q", axis=axis, scale=points)
    tooltip = [
        alt.Tooltip("methodLabel:N", title="method"),
        alt.Tooltip("sure:Q", title="confidence (%)", format=".1f"),
        alt.Tooltip("right:Q", title="accuracy (%)", format=".1f"),
        alt.Tooltip("share:Q", title="share of the images", format=".1%"),
    ]
    area = alt.Size("share:Q", scale=alt.Scale(domain=[0, 1], range=[8, 500]), legend=None)
    zero = alt.Chart(alt.InlineData([{"gap": 0}]))
    return alt.layer(
        zero.mark_rule(color="#999", strokeWidth=1).encode(y=alt.Y("gap:Q")),
        bins.mark_line().encode(x=x, y=y, color=colour, order="bin:Q"),
        bins.mark_circle(opacity=1, clip=False).encode(x=x, y=y, color=colour, size=area, tooltip=tooltip),
    )
