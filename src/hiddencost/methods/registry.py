"""The methods of adapting a network to a task, by name.

What the rest of the code asks of a method is an attribute of its entry here; nothing else compares names. A new label
mapping is a function (see `Method.mapping`) and an entry.
"""

from hiddencost.methods.method import JOBS, Method

__all__ = ["JOBS", "METHODS", "run_by"]
AT_RANDOM, BY_FREQUENCY = (f"hiddencost.methods.mapping:{name}" for name in ("at_random", "by_frequency"))
BY_ASSIGNMENT, BAYESIAN = "hiddencost.methods.assignment:by_assignment", "hiddencost.methods.bayesian"
LINEAR_PROBE, ZERO_SHOT = (f"hiddencost.runs.probe:{name}" for name in ("linear_probe", "zero_shot"))
# in the order of figures and tables; colours are Okabe and Ito's, told apart by all common kinds of colour vision
METHODS = {
    method.name: method
    for method in (
        Method("rlm", label="RLM-VP", colour="#E69F00", mapping=AT_RANDOM),
        Method("flm", label="FLM-VP", colour="#0072B2", mapping=BY_FREQUENCY, first_pass=True),
        Method("ilm", label="ILM-VP", colour="#D55E00", mapping=BY_FREQUENCY, first_pass=True, redraws=True),
        Method("flm-opt", label="FLM-opt-VP", colour="#332288", mapping=BY_ASSIGNMENT, first_pass=True),
        Method("ilm-opt", label="ILM-opt-VP", colour="#999933", mapping=BY_ASSIGNMENT, first_pass=True, redraws=True),
        Method(
            "sem",
            label="SEM-VP",
            colour="#44AA99",
            families=("convolutional", "transformer"),
            mapping="hiddencost.methods.semantic:by_names",
            reads_names=True,
        ),
        Method(
            "blm",
            label="BLM",
            colour="#56B4E9",
            mapping=f"{BAYESIAN}:by_joint_counts",
            first_pass=True,
            redraws=True,
            weighted=True,
        ),
        Method(
            "blm+",
            label="BLM+",
            colour="#000000",
            mapping=f"{BAYESIAN}:by_joint_probabilities",
            first_pass=True,
            redraws=True,
            weighted=True,
            top_share=0.15,
        ),
        Method(
            "fm",
            label="FM",
            colour="#882255",
            families=("convolutional", "transformer"),
            mapping="hiddencost.methods.learned:linear_layer",
            weighted=True,
            learning_rate=1e-3,
        ),
        Method("lp", label="linear probe", colour="#555555", job="probe", function=LINEAR_PROBE),
        Method(
            "ft",
            label="fine-tuning",
            colour="#009E73",
            job="finetune",
            families=("convolutional", "transformer"),
            function="hiddencost.runs.finetune:fine_tune",
        ),
        Method(
            "zs",
            label="zero-shot",
            colour="#CC79A7",
            job="probe",
            families=("clip",),
            trains=False,
            function=ZERO_SHOT,
        ),
    )
}


def run_by(job: str) -> list[str]:
    """Return the names of the methods that a job runs."""
    return [method.name for method in METHODS.values() if method.job == job]
