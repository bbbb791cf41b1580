"""A figure that was drawn for paper, turned for a dark page.

What draws a figure knows nothing of it: greys are turned over, what has a colour becomes lighter, and images and maps
of colours stay as they are.
"""

from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.collections import Collection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation, Text

PAGE, INK = 0.07, 0.93  # of what was white, and of what was black
LIGHTER = 0.35  # share of white in what has a colour
STAYS = "stays"  # the gid of artists whose colours do: what stands on colours that stay
GREY = 0.02  # the most that red, green and blue of a grey differ by


def turned(colour: Any) -> tuple[float, float, float, float]:
    """Return a colour of Matplotlib's for a dark page, as shares of red, green, blue, and its opacity."""
    *rgb, opacity = to_rgba(colour)
    is_grey = max(rgb) - min(rgb) < GREY
    red, green, blue = (INK + (PAGE - INK) * one if is_grey else one + LIGHTER * (1 - one) for one in rgb)
    return red, green, blue, opacity


def turn(figure: Figure) -> None:
    """Turn the colours of a figure, in place."""
    for artist in dict.fromkeys(figure.findobj()):
        if artist.get_gid() != STAYS:
            _turn(artist)


def _turn(artist: Artist) -> None:
    match artist:
        case Text():
            artist.set_color(turned(artist.get_color()))
            if artist.get_path_effects():  # an outline in the colour of the page
                artist.set_path_effects([withStroke(linewidth=2.5, foreground=turned("white"))])
            if isinstance(artist, Annotation) and artist.arrow_patch:
                _turn(artist.arrow_patch)
        case Line2D():
            look = artist.get_color(), artist.get_markerfacecolor(), artist.get_markeredgecolor()
            line, face, edge = map(turned, look)
            artist.set(color=line, markerfacecolor=face, markeredgecolor=edge)
        case Patch():
            artist.set(facecolor=turned(artist.get_facecolor()), edgecolor=turned(artist.get_edgecolor()))
        case Collection():
            if artist.get_array() is None:  # else its faces are those of a map
                artist.set_facecolor([turned(one) for one in np.reshape(artist.get_facecolor(), (-1, 4))])
            if not isinstance(edges := artist.get_edgecolor(), str):  # "face"
                artist.set_edgecolor([turned(one) for one in np.reshape(edges, (-1, 4))])
