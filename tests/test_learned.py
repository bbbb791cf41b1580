import numpy as np
import pandas as pd
import pytest
import torch
from conftest import report_prepared
from torch.multiprocessing.reductions import StorageWeakRef

from hiddencost.catalog.entries import Preprocessing
from hiddencost.compression.verification import KnownImages, VerificationReport
from hiddencost.figures.registry import figures_of_study
from hiddencost.networks.manifest import Manifest
from hiddencost.results import learned
from hiddencost.results.tables import AXES
from hiddencost.runs import ledger
from hiddencost.runs.ledger import Result

PLAIN = {"checkpoint": "net", "compression": "none", "control": None, "sparsity_declared": 0.0, "dense": "dense"}
PLAIN |= {"recipe_dense": "dense"}
BACKBONES = {"dense": PLAIN, "pruned": PLAIN | {"compression": "magnitude", "sparsity_declared": 0.2}}
NAMES = dict.fromkeys(BACKBONES, lambda dataset: None)  # of source classes: ImageNet's
GROUPS = [figures_of_study(BACKBONES, ["toy"], ["rlm", "ilm"], {})["prompts"].backbones]
SHAPES = {name: {"shape": "border", "scaling": None} for name in BACKBONES}
DRAWN = torch.tensor([[0, 1, 2], [0, 1, 5], [7, 6, 5]])  # by epoch


@pytest.fixture
def study(tmp_path):
    """A ledger of runs of three classes, and their prepared dataset: 4 pixels on a canvas of 8."""
    folder = tmp_path / "toy"
    folder.mkdir()
    images = np.arange(6 * 3 * 4 * 4, dtype=np.uint8).reshape(6, 3, 4, 4)
    for part in ("train", "test"):
        np.save(folder / f"{part}_images.npy", images)
        np.save(folder / f"{part}_labels.npy", np.array([1, 0, 1, 2, 0, 2]))
    report_prepared(["apple", "pear", "plum"]).write(folder)
    rows = []
    for backbone in BACKBONES:
        for method in ("rlm", "ilm", "lp"):
            for shots in ("1", "full"):
                for seed in (0, 1):
                    run = ledger.entry_name("c", backbone=backbone, method=method, shots=shots, seed=seed)
                    ran = (backbone, shots, method) != ("pruned", "full", "rlm")
                    axes = {"backbone": backbone, "dataset": "toy", "method": method, "shots": shots, "seed": seed}
                    rows.append(axes | {"status": "ok" if ran else "diverged", "run": run})
                    tensors = {"weight": torch.zeros(2)}
                    if method != "lp":
                        strength = 0.4 if backbone == "dense" else -0.2
                        tensors = {
                            "prompt": torch.full((3, 8, 8), strength),
                            "mapping": DRAWN[-1].clone(),
                            "mappings": DRAWN,
                        }
                    ledger.record(tmp_path / "ledger", run, tensors, Result(status="ok"))
    return pd.DataFrame(rows), tmp_path / "ledger", {"toy": str(folder), "gone": str(tmp_path / "gone")}


def test_mappings_are_those_at_the_end_with_the_names_of_both_sides(study):
    found = learned.read_learned(*study, GROUPS, NAMES, SHAPES).mappings
    assert list(found.columns) == learned.MAPPINGS
    assert len(found) == 3 * (8 + 6)  # ilm of all, rlm without those that diverged
    assert "lp" not in set(found["method"])
    first = found[(found[AXES] == ["pruned", "toy", "ilm", "full", 1]).all(axis=1)]
    assert first["source"].tolist() == [7, 6, 5]
    assert first["target_name"].tolist() == ["apple", "pear", "plum"]
    assert first["source_name"].tolist() == ["cock", "stingray", "electric ray"]  # ImageNet's classes 7, 6 and 5


def test_the_share_remapped_is_against_the_epoch_before_and_of_ilm_alone(study):
    found = learned.read_learned(*study, GROUPS, NAMES, SHAPES).remapped
    assert set(found["method"]) == {"ilm"}
    one = found[(found[AXES] == ["dense", "toy", "ilm", "1", 0]).all(axis=1)]
    assert one["epoch"].tolist() == [2, 3]
    assert one["share"].tolist() == pytest.approx([1 / 3, 2 / 3])


@pytest.mark.parametrize("method", ["blm", "fm"])
def test_of_a_mapping_of_weights_the_largest_is_told(study, method):
    """Of one that is learned with the prompt the last column is its bias."""
    runs, folder, _ = study
    weights = torch.eye(1000)[DRAWN[-1]]
    if method == "fm":
        weights = torch.cat([weights, torch.full((3, 1), 9.0)], 1)
    ilm = runs["method"] == "ilm"
    for run in runs.loc[ilm, "run"]:
        tensors, result = ledger.read(folder, run)
        kept = {name: one.clone() for name, one in tensors.items()} | {"mapping": weights}
        ledger.record(folder, run, kept, result)
    runs = runs.assign(method=runs["method"].where(~ilm, method))
    found = learned.read_learned(runs, *study[1:], GROUPS, NAMES, SHAPES)
    first = found.mappings[(found.mappings[AXES] == ["pruned", "toy", method, "full", 1]).all(axis=1)]
    assert first["source"].tolist() == [7, 6, 5]
    assert found.remapped["share"].tolist()[:2] == pytest.approx([1 / 3, 2 / 3])


def test_a_run_whose_entry_is_damaged_or_gone_is_not_shown_and_the_others_are(study, caplog):
    runs, folder, _ = study
    chosen = runs[(runs["method"] == "ilm") & (runs["shots"] == "1")]
    gone, damaged = chosen["run"].iloc[:2]
    ledger.entry(folder, gone).unlink()
    path = ledger.entry(folder, damaged)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # of a tensor
    path.write_bytes(content)
    found = learned.read_learned(*study, GROUPS, NAMES, SHAPES)
    assert len(found.mappings) == 3 * (8 + 6 - 2)
    assert len(found.remapped) == 2 * (8 - 2)
    assert f"what a run has learned is not shown: {path} is damaged" in caplog.text


def test_a_run_without_what_its_method_learns_is_not_shown_and_the_others_are(study, caplog):
    runs, folder, _ = study
    for method, left in (("ilm", ["prompt", "mapping"]), ("rlm", ["prompt"])):
        run = runs.loc[(runs["method"] == method) & (runs["shots"] == "1"), "run"].iloc[0]
        tensors, result = ledger.read(folder, run)
        ledger.record(folder, run, {name: tensors[name].clone() for name in left}, result)
        without = f"{ledger.entry(folder, run)} has no mapping{'s' * (method == 'ilm')}"
        found = learned.read_learned(*study, GROUPS, NAMES, SHAPES)
        assert f"what a run has learned is not shown: {without}" in caplog.text
    assert len(found.mappings) == 3 * (8 + 6 - 2)


def test_what_was_read_of_a_run_is_dropped_before_the_next_is(study, monkeypatch):
    whole, read, held = ledger.read, [], []

    def watched(*args):
        held.append(sum(not storage.expired() for storage in read))
        tensors, result = whole(*args)
        read.extend(StorageWeakRef(tensor.untyped_storage()) for tensor in tensors.values())
        return tensors, result

    monkeypatch.setattr(ledger, "read", watched)
    learned.read_learned(*study, GROUPS, NAMES, SHAPES)
    assert len(held) == 14
    assert max(held) == 0


def test_prompts_are_of_the_largest_shots_that_both_ran_and_share_one_contrast(study):
    found = learned.read_learned(*study, GROUPS, NAMES, SHAPES)
    assert set(found.prompts) == {
        "gain",
        *(f"{backbone}/toy/rlm/1/0" for backbone in BACKBONES),
        *(f"{backbone}/toy/ilm/full/0" for backbone in BACKBONES),
    }
    gain = int(found.prompts["gain"])
    light, dark = (1 / (1 + np.exp(-w)) - 0.5 for w in (0.4, -0.2))
    assert gain == int(0.5 / light)
    dense, pruned = (found.prompts[f"{backbone}/toy/ilm/full/0"] for backbone in BACKBONES)
    assert dense[:, 0, 0].tolist() == [round(255 * (0.5 + gain * light))] * 3
    assert pruned[:, 7, 7].tolist() == [round(255 * (0.5 + gain * dark))] * 3
    # in the middle the first image of the first class
    assert (dense[:, 2:6, 2:6] == found.examples["toy"][0]).all()


def test_prompts_stand_side_by_side_of_one_seed(study):
    runs, folder, prepared = study
    lost = (runs["backbone"] == "pruned") & (runs["seed"] == 0)
    found = learned.read_learned(runs[~lost], folder, prepared, GROUPS, NAMES, SHAPES).prompts
    assert set(found) == {"gain", *(f"{b}/toy/{run}/1" for b in BACKBONES for run in ("rlm/1", "ilm/full"))}


def test_without_the_prepared_images_there_are_no_examples_and_classes_are_numbers(study):
    runs, folder, _ = study
    whole = learned.read_learned(*study, GROUPS, NAMES, SHAPES)
    found = learned.read_learned(runs, folder, {"toy": str(folder / "gone")}, GROUPS, NAMES, SHAPES)
    assert found.examples == {}
    assert found.mappings["target_name"].tolist() == found.mappings["target"].astype(str).tolist()
    assert found.mappings["source_name"].equals(whole.mappings["source_name"])
    canvas, complete = (one.prompts["dense/toy/ilm/full/0"] for one in (found, whole))
    assert (canvas[:, 0] == complete[:, 0]).all()
    assert (canvas[:, 2:6, 2:6] != complete[:, 2:6, 2:6]).any()


def test_examples_are_the_first_image_of_each_class(study):
    runs, folder, prepared = study
    found = learned.read_learned(runs, folder, prepared, GROUPS, NAMES, SHAPES).examples
    assert set(found) == {"toy"}
    images = np.load(prepared["toy"] + "/train_images.npy")
    assert (found["toy"] == images[[1, 0, 3]]).all()


def test_a_study_without_results_has_empty_tables(study):
    runs, folder, prepared = study
    found = learned.read_learned(runs.assign(status="not run"), folder, prepared, GROUPS, NAMES, SHAPES)
    assert list(found.mappings.columns) == learned.MAPPINGS
    assert list(found.remapped.columns) == learned.REMAPPED
    assert len(found.mappings) == len(found.remapped) == len(found.prompts) == 0


def test_what_is_known_upstream_is_published_or_photos_or_nothing(tmp_path):
    for name, known, shown in (("v", 17, 20), ("many", 837, 1000)):
        photos = KnownImages(top1=known, count=shown, of="photos", exempt=False)
        VerificationReport(passed=True, photos=photos).write(tmp_path / f"{name}.json")
    VerificationReport(passed=False).write(tmp_path / "failed.json")
    preprocessing = Preprocessing(mean=[0, 0, 0], std=[1, 1, 1], interpolation="bilinear")
    manifest = Manifest(checkpoint="trained", architecture="net", preprocessing=preprocessing, upstream_top1=87.5)
    manifest.write(tmp_path)
    nothing = {"top1": None, "manifest": None, "as_trained": True}
    trained = {"top1": None, "manifest": str(tmp_path / "manifest.json")}
    found = learned.upstream(
        {
            "a": {"top1": 71.9, "verification": str(tmp_path / "v.json"), "manifest": None, "as_trained": True},
            "b": {"verification": str(tmp_path / "failed.json"), **nothing},
            "many": {"verification": str(tmp_path / "many.json"), **nothing},
            "c": {"verification": str(tmp_path / "absent.json"), **nothing},
            "trained": {"verification": str(tmp_path / "v.json"), **trained, "as_trained": True},
            "trained and pruned": {"verification": str(tmp_path / "v.json"), **trained, "as_trained": False},
        }
    ).set_index("backbone")
    assert found.loc["a"].dropna().to_dict() == {"top1": 71.9, "photos": 17, "photos_shown": 20}
    # the interval by Wilson's formula
    p, n, z = 0.837, 1000, 1.959964
    middle = (p + z**2 / 2 / n) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * (p * (1 - p) / n + z**2 / 4 / n**2) ** 0.5
    expected = [837, 1000, 83.7, 100 * (middle - half), 100 * (middle + half)]
    assert found.loc["many"].dropna().tolist() == pytest.approx(expected, abs=1e-4)
    assert found.loc[["b", "c"]].isna().all(axis=None)
    assert found.loc["trained", ["top1", "photos"]].tolist() == [87.5, 17]
    assert found.loc["trained and pruned", "photos"] == 17  # of its own test images, as the dense one has them
    assert np.isnan(found.loc["trained and pruned", "top1"])


def test_source_classes_have_the_names_of_what_a_network_was_trained_on(study):
    runs, folder, prepared = study
    name = runs["backbone"].iloc[0]
    named = [f"own {number}" for number in range(1000)]
    found = learned.read_learned(
        runs, folder, prepared, GROUPS, NAMES | {name: lambda dataset: named}, SHAPES
    ).mappings
    own = found["backbone"] == name
    assert (found.loc[own, "source_name"] == [f"own {number}" for number in found.loc[own, "source"]]).all()
    assert not found.loc[~own, "source_name"].str.startswith("own ").any()
