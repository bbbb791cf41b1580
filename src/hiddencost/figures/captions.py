"""What the reader of a figure is told, apart from the code that draws it: another word redraws nothing."""

BANDS = "Bands are the 95 % t interval of that mean; of two seeds they just span the two."
CAPTIONS = {
    "accuracy": "Test accuracy against the number of training images per class. Colours are methods; solid lines "
    "are the dense network, broken ones with other markers the compressed, thin dotted ones the controls. Lines are "
    f"means over seeds. {BANDS} The thin dotted horizontal is chance. A line is broken where a cell was not run.",
    "heatmap": "Hidden cost: accuracy of the dense network minus that of another, in points, mean of the "
    "seed-paired differences, over networks and shots, a map a method (of more than five levels of compression, five "
    "where there are many datasets). Beside them the curves of the dense network (solid) and the most compressed "
    f"one (dashed), means over seeds. {BANDS} Red: compression costs; blue: it helps. A dot marks a cell whose 95 % "
    "t interval over seeds excludes zero (not corrected for the number of cells). 98 % of the cells of compressed "
    "networks lie within the scale; controls, below the line, may lie beyond it. A hatched cell has no result to "
    "compare.",
    "calibration": "What compression does to calibration: expected calibration error (15 bins) of a network minus "
    "that of the dense one, in points, mean of the seed-paired differences, over networks and shots, a map a method "
    "(of more than five levels of compression, five where there are many datasets). Beside them the ECE of the "
    f"dense network (solid) and the most compressed one (dashed), means over seeds. {BANDS} Red: calibration is "
    "worse; blue: better. A dot marks a cell whose 95 % t interval over seeds excludes zero (not corrected for the "
    "number of cells). 98 % of the cells of compressed networks lie within the scale; controls, below the line, may "
    "lie beyond it. A hatched cell has no result to compare.",
    "reliability": "Reliability diagrams at the study's largest number of shots: accuracy against confidence in 15 "
    "bins of equal width, over the softmax of the mapped logits, all seeds pooled. A point's area is the share of "
    "test images in its bin; bins with less than 1 % of the images are not joined to the line. Under the diagonal "
    "the network is overconfident. The numbers over a panel are the ECE, mean over seeds. Of many datasets: the "
    "dense network and the most compressed one, and a quantised one where there is one.",
    "mapping": "Which of its own classes a network has stand for each target class, the dense one and the most "
    "compressed one with a result: the first classes in the dataset's order, at the largest number of shots, and "
    "the first seed, that both ran. Grey where both chose the same. The shares are of all target classes, means over "
    "seeds: where both networks chose alike and, to hold that against, where two seeds of the dense network did.",
    "movement": "How a label mapping that is redrawn moves: the share of target classes that were mapped otherwise "
    f"than in the epoch before, mean over seeds, at the largest number of shots with a result. {BANDS}",
    "prompts": "What was learned: the prompt (the border) around an image of the training set, dense beside the "
    "most compressed network with a result, at the largest number of shots, and the first seed, that both ran. Grey "
    "is where training began; the contrast of all borders is raised by the factor that the title names.",
    "glance": "Hidden cost at a glance: what a network kept of the dense one's upstream accuracy against the "
    "accuracy that it lost downstream (dense minus network, in points), a panel a method. A point is the mean over "
    "datasets, shots and seeds; bars are its 95 % interval over datasets, or over seeds where there is one dataset "
    "(see the claims). Filled: upstream top-1, as published or as measured after training; open: the images of the "
    "verification, which are few and easy. A diamond: what compression costs at matched upstream accuracy, where the "
    "line through all networks' losses meets 100 %, with its interval over networks and seeds (see the "
    "tables). A line joins the levels of a kind of compression; the number is the sparsity of the last. "
    "Controls that lie off the axes are told over the panel. A star: cells of it are missing, so that its mean is "
    "not over the same as the others'.",
}


def caption(figure: dict) -> str:
    """Return what a figure of `gallery.listed` shows, for its reader."""
    return CAPTIONS[figure["kind"]]
