import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT, report_prepared

from hiddencost import catalog
from hiddencost.catalog.entries import Counts, TrainedEntry
from hiddencost.datasets.own import user_entry
from hiddencost.datasets.readers.image import MOST_PIXELS
from hiddencost.jobs import analysis_cost, cost
from hiddencost.runs import measured
from hiddencost.sources import SourceFile
from hiddencost.study.load import load_study

CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text())
FILES = {"weights": SourceFile(name="a.pth", size=14_000_000), "mask": SourceFile(name="b.pth", size=1000)}
NETWORK = catalog.checkpoint("mobilenetv2").model_copy(update={"gmacs": 0.5, "files": FILES})
KNOWN = {"counts": Counts(train=100, test=50), "classes": list("abcdefghij"), "files": {}}
PAPER = ["cifar10", "svhn", "gtsrb", "dtd", "flowers102", "oxfordpets", "eurosat", "caltech101"]
DATASET = catalog.datasets()["cifar10-part"].model_copy(update=KNOWN)
FORWARD = 2 * 0.5 * (112 / 224) ** 2  # GFLOP of an image


@pytest.fixture
def study():
    recipe = {"epochs": 3, "learning_rate": 0.1, "weight_decay": 0.0, "batch_size": 8, "shuffle": True}
    recipe |= {"test_batch_size": 8, "precision": "auto"}
    protocol = CONFIG["protocol"] | {"epochs": 5, "milestones": [], "mapping_interval": 2, "canvas": 112}
    probe = CONFIG["probe"] | {"epochs": 4, "milestones": []}
    shots = [1, 20, "full"]  # 10 images, and 100 twice
    methods = ["rlm", "flm", "ilm", "lp", "ft"]
    changes = {"shots": shots, "methods": methods, "protocol": protocol, "probe": probe, "finetune": recipe}
    return load_study(CONFIG | changes, "config.yaml")


@pytest.mark.parametrize(
    ("methods", "training", "rest"),
    [
        (["rlm"], 210 * 5 * 2, 3 * 50),
        (["flm"], 210 * 5 * 2, 210 + 3 * 50),
        (["ilm"], 210 * 5 * 2, 210 * 3 + 3 * 50),  # a new mapping at epochs 0, 2 and 4
        (["ft"], 210 * 3 * 3, 3 * 50),
        (["lp"], 0, 0),
        (["rlm", "flm"], 2 * 210 * 5 * 2, 210 + 2 * 3 * 50),
    ],
)
def test_a_pack_costs_its_passes_through_the_network(study, methods, training, rest):
    expected = {"training": training * FORWARD, "mapping and test": rest * FORWARD}
    assert cost.pack_gflop(study, study.backbones[0], methods, NETWORK, DATASET) == pytest.approx(expected)
    assert cost.train_seconds(study, study.backbones[0], methods, NETWORK, DATASET) == pytest.approx(
        (training + rest) * FORWARD / cost.GPU_RATE
    )


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-L-14-336-quickgelu"])
def test_names_cost_what_the_text_tower_computes(name):
    """Without the image tower, which of the larger is thirteen times as much."""
    from torch.utils.flop_counter import FlopCounterMode

    from hiddencost.networks.clip import model

    with torch.device("meta"):
        network = model.build(name)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network.encode_text(torch.zeros(1, 77, dtype=torch.int64))
    assert cost.text_gmacs(f"clip/{name}") == pytest.approx(counter.get_total_flops() / 2e9, rel=0.05)


def test_a_text_encoder_asks_by_its_size():
    small, large = catalog.checkpoint("openclip-vit-b-32.openai"), catalog.checkpoint("clip-vit-l-14-336")
    seconds = [cost.names_seconds(1100, one) for one in (small, large)]
    assert seconds == pytest.approx([1100 * 2 * 2.98 / cost.CPU_RATE, 1100 * 2 * 6.65 / cost.CPU_RATE], rel=0.02)
    assert cost.names_mb(large) == 2000 + 3 * 1712
    assert cost.text_gmacs("clip/TinyCLIP-ViT-40M-32-Text-19M") == cost.text_gmacs("clip/ViT-B-32")


def test_a_fixed_number_of_steps_costs_its_batches(study):
    """10 images, and 100 twice: in batches of 4, or of 40, 9 steps are 3 passes over 10 images, and 3 over 100."""
    batch_size = {1: 4, "default": 40}
    protocol = {key: value for key, value in CONFIG["protocol"].items() if key != "epochs"}
    protocol |= {"steps": 9, "milestones": [], "mapping_interval": 2, "canvas": 112, "batch_size": batch_size}
    config = study.model_dump(exclude_none=True) | {"protocol": protocol}
    by_steps = load_study(config, "config.yaml")
    expected = {"training": 2 * (3 * 10 + 2 * 3 * 100), "mapping and test": (10 + 200) * 2 + 3 * 50}
    found = cost.pack_gflop(by_steps, study.backbones[0], ["ilm"], NETWORK, DATASET)
    assert found == pytest.approx({kind: images * FORWARD for kind, images in expected.items()})
    # in batches of 100, a dataset's own: 9 passes, with a mapping at the first, third, ... and ninth
    own = cost.pack_gflop(by_steps, study.backbones[0], ["ilm"], NETWORK, DATASET, batch_size=100)
    expected = {"training": 2 * 9 * 210, "mapping and test": 5 * 210 + 3 * 50}
    assert own == pytest.approx({kind: images * FORWARD for kind, images in expected.items()})


def test_shots_that_choose_all_images_are_one_training(study):
    whole = DATASET.model_copy(update={"largest_class": 20})
    asked = [1, 20, 21, "full"]
    probe = study.probe
    assert cost.distinct_shots(asked, DATASET, probe) == asked
    assert cost.distinct_shots(asked, whole, probe) == [1, 20]
    assert cost.distinct_shots(["full"], whole, probe) == ["full"]
    otherwise = study.protocol.model_copy(update={"batch_size": {"21": 8, "default": 4}})
    assert cost.distinct_shots(asked, whole, otherwise) == [1, 20, 21]
    known = {name: catalog.datasets()[name] for name in PAPER}
    budgets = [1, 2, 5, 10, 20, 50, 100, "full"]
    copies = {name: 8 - len(cost.distinct_shots(budgets, one, probe)) for name, one in known.items()}
    assert {name: count for name, count in copies.items() if count} == {
        **{"flowers102": 4, "dtd": 2, "caltech101": 2, "oxfordpets": 1}
    }
    for name, one in known.items():  # a largest class is no smaller than the mean one
        assert not one.largest_class or one.largest_class * len(one.classes) >= one.counts.train, name


def test_features_and_probes_cost_their_images(study):
    assert cost.features_gflop(study, study.backbones[0], NETWORK, DATASET) == 150 * FORWARD
    assert cost.features_seconds(study, study.backbones[0], NETWORK, DATASET) == 150 * FORWARD / cost.GPU_RATE
    assert cost.probe_seconds(study, DATASET) == 210 * 4 / cost.PROBE_RATE


def test_the_time_to_ask_for_starts_at_ten_minutes_and_doubles_with_each_attempt():
    assert [cost.minutes(0, attempt) for attempt in (1, 2, 3)] == [10, 20, 40]
    assert [cost.minutes(3601, attempt) for attempt in (1, 2)] == [71, 142]


def test_what_the_catalog_does_not_say_is_assumed_for_jobs_and_costs_nothing_in_the_outlook(study):
    unsized = {"weights": SourceFile(name="model.safetensors")}
    unknown = NETWORK.model_copy(update={"gmacs": None, "files": unsized})
    own = DATASET.model_copy(update={"counts": None, "classes": None})
    assert cost.pack_gflop(study, study.backbones[0], ["flm"], unknown, own) == {"training": 0, "mapping and test": 0}
    assert cost.features_gflop(study, study.backbones[0], unknown, own) == 0
    network, dataset = cost.fill_gaps(unknown, own)
    assert cost.train_seconds(study, study.backbones[0], ["flm"], network, dataset) > 60
    assert cost.features_mb(study, study.backbones[0], network, dataset, "cpu") > 60_000 * 2048 * 4 / 1e6
    assert cost.network_mb(network) > cost.network_mb(NETWORK)
    # once it is prepared, its own figures
    prepared = report_prepared("ab").model_copy(update={"counts": Counts(train=20, test=10)})
    _, dataset = cost.fill_gaps(unknown, own, prepared)
    assert cost.probe_seconds(study, dataset) == (2 + 20 + 20) * 4 / cost.PROBE_RATE
    assert cost.fill_gaps(NETWORK, DATASET, prepared) == (NETWORK, DATASET)
    failed = cost.fill_gaps(unknown, own, report_prepared(failed="no source gave it"))
    assert cost.train_seconds(study, study.backbones[0], ["flm", "ft"], *failed) == 0


def test_memory_counts_images_network_and_work(study):
    network = cost.COPIES * 14
    assert cost.training_images_mb(DATASET, 32) == 100 * 3 * 32**2 / 1e6
    assert (
        cost.train_mb(study, study.backbones[0], NETWORK, DATASET, "32", "cpu") == 2863
    )  # 1000, less than one of images, 112, and 7000 / 4
    assert cost.train_mb(study, study.backbones[0], NETWORK, DATASET, "32", "gpu") == 4113
    large = DATASET.model_copy(update={"counts": Counts(train=50_000, test=10_000)})
    found = [cost.features_mb(study, study.backbones[0], NETWORK, one, "cpu") for one in (large, DATASET)]
    assert found[0] - found[1] == pytest.approx(59_850 * 2048 * 4 / 1e6, abs=1)
    assert cost.probe_mb(large) == 1000 + -(-3 * 60_000 * 2048 * 4 // 10**6)
    batches = [cost.finetune_mb(study, study.backbones[0], NETWORK, large, size, "cpu") for size in (128, 256)]
    assert batches[1] - batches[0] == 128 * cost.IMAGE / 4
    assert cost.finetune_mb(study, study.backbones[0], NETWORK, DATASET, 128, "gpu") == cost.PROCESS["gpu"] + network


def test_a_file_of_arrays_is_read_whole_unless_it_is_large(tmp_path):
    file = tmp_path / "mine.npz"
    images, labels = np.zeros((3200, 32, 32, 3), np.uint8), np.arange(3200) % 2
    np.savez(file, x_train=images, y_train=labels, x_test=images[:2], y_test=labels[:2])
    own = user_entry("mine", npz=str(file))
    assert cost.OWN_IMAGE * 1e6 >= 16 * MOST_PIXELS
    assert cost.prepare_mb(own) == 500 + cost.OWN_IMAGE + 40
    with open(file, "r+b") as large:
        large.truncate(10**12)
    assert cost.prepare_mb(own) == 500 + cost.OWN_IMAGE + 4295
    folder = own.model_copy(update={"options": {"path": str(tmp_path)}})
    assert cost.prepare_mb(folder) == 500 + cost.OWN_IMAGE
    assert cost.prepare_seconds(own) == 3202 / cost.RESIZE_RATE
    archive = {"archive": SourceFile(name="a.tgz", size=170_000_000)}
    assert cost.prepare_mb(DATASET.model_copy(update={"files": archive})) == 500 + 680


def test_jobs_get_most_of_the_memory_and_no_more_than_there_is():
    total = cost.psutil.virtual_memory().total / 1e6
    assert 0 < cost.machine_mb() <= 0.9 * total


def test_upstream_training_costs_three_passes_and_asks_for_a_day_at_most():
    assert cost.upstream_gflop(epochs=2, images=1000, gmacs=0.04) == pytest.approx(2 * 1000 * 3 * 0.08)
    assert cost.upstream_minutes(cost.GPU_RATE * 60, 1) == 11
    assert cost.upstream_minutes(cost.GPU_RATE * 60, 2) == 22
    year = cost.GPU_RATE * 365 * 86400
    assert [cost.upstream_minutes(year, attempt) for attempt in (1, 2)] == [1440, 1440]


def test_upstream_training_wants_memory_for_its_batch_on_a_cpu_and_for_its_readers_on_a_gpu():
    small, large = (cost.upstream_mb(1_000_000, batch, 224, "cpu") for batch in (1, 65))
    assert large - small == pytest.approx(64 * cost.IMAGE, abs=1)
    assert cost.upstream_mb(1_000_000, 1, 224, "gpu") == cost.upstream_mb(1_000_000, 65, 224, "gpu")
    assert cost.upstream_mb(11_000_000, 1, 32, "cpu") - cost.upstream_mb(1_000_000, 1, 32, "cpu") == 8 * 40


def test_a_network_that_the_study_trains_has_no_file_to_weigh(study):
    assert cost.weights_mb(TrainedEntry(title="net", architecture="resnet18", gmacs=None)) == cost.WEIGHTS


def test_analyses_cost_their_passes_of_the_runs_that_are_computed_once(study):
    """2 methods with a budget of 1, and two that choose all 20 of a class; the linear probe's features alone."""
    of = study.backbones[0], NETWORK, DATASET.model_copy(update={"largest_class": 20})
    study = study.model_copy(update={"methods": ["flm", "ilm", "lp"], "seeds": [0]})
    assert analysis_cost.GRADIENT_IMAGES == measured.GRADIENT_IMAGES
    found = {name: gflop(study, *of) / FORWARD for name, gflop in analysis_cost.ANALYSIS_GFLOP.items()}
    corrupted = analysis_cost.corrupted_images(study, DATASET)
    assert corrupted == len(study.shift.corruptions) * len(study.shift.severities) * 50
    assert found == pytest.approx(
        {"shift": (2 * 2 + 1) * corrupted, "why": 2 * (50 + 4 * (50 + 3 * 50)), "split": 2 * 2 * 4 * 50}
    )
    many = of[2].model_copy(update={"counts": Counts(train=100, test=10_000)})
    why = analysis_cost.why_gflop(study, *of[:2], many)
    assert why / FORWARD == pytest.approx(2 * (10_000 + 4 * (10_000 + 3 * 1000)))
    probed = study.model_copy(update={"methods": ["lp"]})
    assert analysis_cost.why_gflop(probed, *of) == 0
