"""One process of a training that torchrun starts: torchrun --nproc-per-node N -m hiddencost.upstream JOB.json

JOB.json: `what` ("make" or "rewind_point"), `job` (see `training`) and `workers`.
"""

import logging
import sys

import torch

from hiddencost.files import read_json
from hiddencost.upstream import training

if __name__ == "__main__":
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    told = read_json(sys.argv[1])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    getattr(training, told["what"])(told["job"], device, told["workers"])
