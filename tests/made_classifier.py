"""A learned model of any method and shape of prompt that never learned, as `hiddencost.load` returns one."""

import torch

from hiddencost.networks import layers
from hiddencost.networks.families import family_of
from hiddencost.runs.classifier import TrainedClassifier

ABOUT = {
    "architecture": "resnet20_cifar",
    "preprocessing": {"mean": [0.48, 0.46, 0.4], "std": [0.23, 0.22, 0.22]},
    "classes": ["apple", "pear", "plum"],
    "size": "24",
    "prompt": "border",
    "canvas": 32,
    "image_size": 24,
    "run": {
        **{"study": "s", "backbone": "small", "dataset": "fruit", "method": "flm", "shots": "2", "seed": 0},
        **{"accuracy": 0.625, "run": "ab" * 32},
    },
    "origin": {
        **{"checkpoint": "mobilenetv2", "compression": "magnitude", "control": None, "sparsity": 0.3},
        **{"published": "mobilenetv2", "trained": False},
    },
}


def make_classifier(method: str = "flm", **settings) -> TrainedClassifier:
    """Return a model of random weights, prompt and mapping.

    Args:
        method: of its run.
        settings: in place of those of ABOUT.
    """
    about = ABOUT | {"run": ABOUT["run"] | {"method": method}} | settings
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = TrainedClassifier(family_of(about["architecture"]).saved_classifier(about), about)
        for name in model.learned:
            if name not in ("scale", *model.shape.not_trained):
                model.get_buffer(name).normal_()
        if model.mapping.is_floating_point():
            model.mapping.normal_()
        elif method != "lp":
            model.mapping.random_(layers.head_of(model.network).out_features)
    return model
