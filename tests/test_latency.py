"""What networks cost to run: bytes by hand, times, and the table that sets them beside the cost of compression."""

from pathlib import Path

import in_process
import pandas as pd
import pytest
import torch
from torch import nn

from hiddencost.files import read_json
from hiddencost.jobs import analyses, layout
from hiddencost.jobs.call import Call
from hiddencost.networks import ofq
from hiddencost.networks.manifest import Manifest
from hiddencost.results import latency as table
from hiddencost.runs import latency
from hiddencost.study.load import load_study

PREPROCESSING = {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bilinear"}


def manifest(**values):
    return Manifest(checkpoint="net", architecture="net", preprocessing=PREPROCESSING, **values)


def test_bytes_are_those_counted_by_hand():
    network = nn.Sequential(nn.Conv2d(1, 4, 2, bias=False), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        for number, tensor in enumerate(network.parameters()):
            tensor.fill_(1 + number)
        network[0].weight[:3] = 0  # 12 of 16
    dense = latency.count_bytes(network, manifest())
    # convolution 16, batch norm 4 x 4, classifier 8 + 2, of which 8 of batch norm are no parameters
    assert (dense["parameters"], dense["nonzero"], dense["bits"]) == (34, 22, 32)
    assert dense["bytes_dense"] == 4 * 42
    # the convolution's mask of 16 bits and 4 values; batch norm's running means, zeros as yet: a mask of 4 bits
    assert dense["bytes_compressed"] == (2 + 16) + (16 + 16 + 1 + 16) + 4 * (8 + 2)
    rounded = latency.count_bytes(network, manifest(compression="int4", quantisation_bits=4))
    # 16 bits of mask and 4 values of 4 bits are less than 16 values; a scale for each of 4 and 2 output channels
    assert rounded["bytes_compressed"] == (4 + 16) + (16 + 16 + 1 + 16) + (4 + 8) + 4 * 2
    assert rounded["bytes_dense"] == dense["bytes_dense"]


def test_a_published_quantised_network_has_the_bits_of_its_values():
    network = nn.Sequential(nn.Linear(300, 1, bias=False))
    with torch.no_grad():
        network[0].weight[:] = torch.arange(300) % 200
    assert latency.count_bytes(network, manifest(compression="w8a8"))["bits"] == 8
    assert latency.count_bytes(network, manifest(compression="none"))["bits"] == 32


def test_a_layer_with_a_quantiser_of_its_own_has_its_bits():
    """OFQ's weights are rounded in each forward pass: what is stored is float32."""
    attention, first = ofq.Attention(8, 2, 5, 2), ofq.QConv2d(nn.Conv2d(3, 8, 4, 4), 8)
    head = ofq._head(nn.Linear(8, 3))
    with torch.no_grad():
        head.linear.weight[:] = torch.arange(8) - 3  # 8 values, on a grid
        first.lsqw_fn.s.fill_(1e-3)
    layers = nn.ModuleDict({"attn": attention, "fc1": ofq.QLinear(8, 4, 5, 2), "first": first, "head": head}).eval()
    stored = latency.stored_layers(layers, manifest(compression="ofq"))
    expected = {f"attn.{name}.weight": 2 for name in "qkv"} | {"attn.proj.weight": 2, "fc1.weight": 2}
    assert {key: bits for key, (_, bits) in stored.items()} == expected | {"first.weight": 8, "head.linear.weight": 3}
    assert len(stored["fc1.weight"][0].unique()) <= 4 * 4
    # the product of queries and keys [2 heads x 8, 8] stands for both: 128 values, 16 scales
    assert (stored["attn.q.weight"][0].shape, stored["attn.k.weight"][0].numel()) == ((16, 8), 0)
    counted = latency.count_bytes(layers, manifest(compression="ofq"))
    rounded = (32 + 64) + 2 * (16 + 32) + (8 + 16) + (384 + 32) + (9 + 12)
    rest = (tensor for key, tensor in layers.state_dict().items() if key not in stored)
    assert counted["bytes_compressed"] == rounded + sum(latency.stored_bytes(tensor, 32) for tensor in rest)
    assert counted["bits"] == 8  # 384 of the weights are the first layer's
    # of eight heads the product takes as much in 4 bits, with its scales, as both in float32
    eight = latency.stored_layers(nn.ModuleDict({"attn": ofq.Attention(8, 8, 5, 4)}), manifest(compression="ofq"))
    assert [eight[f"attn.{name}.weight"][1] for name in "qkv"] == [32, 32, 4]


def test_a_study_that_asks_has_a_row_a_backbone_with_its_cost(tmp_path, monkeypatch):
    config = in_process.STUDY | {"methods": ["flm"], "shots": [1], "analysis": ["latency"]}
    finished = in_process.run(config, tmp_path, monkeypatch)
    call = Call(finished.study)
    for backbone, file in zip(("dense", "pruned"), analyses.evaluated(call, "latency"), strict=True):
        folder = Path(call.path(layout.BACKBONE, backbone=backbone))
        files, sides = analyses.networks_to_measure(call, backbone), analyses.latency(call, backbone)
        assert [Path(path).parent for path in files["backbone"]] == [folder] * 3
        dense = [latency.Measured(Path(path).parent, sides["dense_canvas"]) for path in files["dense"][:1]]
        latency.write(latency.Measured(folder, sides["canvas"]), *(dense or [None]), Path(file), in_process.CPU)
    made = analyses.tables(call, "latency")
    table.write(analyses.evaluated(call, "latency"), finished.tables["runs"], made)
    rows = pd.read_csv(made["latency"]).set_index("backbone")
    assert list(rows.reset_index()) == table.COLUMNS
    assert rows["dense"].tolist() == ["dense", "dense"]
    assert rows["canvas"].tolist() == [16, 16]
    runs = finished.runs.pivot_table("accuracy", "backbone")["accuracy"]
    assert rows.loc["pruned", "cost"] == pytest.approx(100 * (runs["dense"] - runs["pruned"]), rel=1e-4)
    assert pd.isna(rows.loc["dense", "cost"])
    assert rows.loc["pruned", "nonzero"] < rows.loc["dense", "nonzero"]
    assert rows.loc["pruned", "bytes_compressed"] < rows.loc["dense", "bytes_compressed"]
    for size in latency.BATCH_SIZES:
        low, middle, high = (rows[f"ms_{size}{end}"] for end in ("_low", "", "_high"))
        assert ((low > 0) & (low <= middle) & (middle <= high)).all()
        assert (rows[f"calls_{size}"] >= latency.FEWEST).all()
        assert rows[f"relative_{size}"].notna().tolist() == [False, True]


def test_two_networks_are_measured_in_turn(monkeypatch):
    clock, called = [0.0], []
    monkeypatch.setattr(latency, "_now", lambda device: clock[0])

    def network(name, seconds):
        def call(images):
            called.append(name)
            clock[0] += seconds * len(images)

        return call

    image = torch.zeros(1, 3, 4, 4)
    sparse, dense = (network("sparse", 0.003), image), (network("dense", 0.002), image)
    found = latency.measure([sparse, dense], 4, torch.device("cpu"))
    assert called == ["sparse", "dense"] * (latency.WARM_UP + latency.MOST)
    assert found["ms_4"] == pytest.approx(3)
    assert (found["relative_4_low"], found["relative_4"], found["relative_4_high"]) == pytest.approx((1.5,) * 3)
    assert found["calls_4"] == latency.MOST
    slow = latency.measure([(network("slow", 10.0), image)], 1, torch.device("cpu"))
    assert slow["calls_1"] == latency.FEWEST
    assert "relative_1" not in slow


def test_a_backbone_that_could_not_be_made_has_a_row_without_numbers(tmp_path):
    manifest(failed="no source gave it").write(tmp_path)
    latency.write(latency.Measured(tmp_path, 16), None, tmp_path / "latency.json", torch.device("cpu"))
    assert read_json(tmp_path / "latency.json") == {"backbone": tmp_path.name}


def test_without_being_asked_for_nothing_is_evaluated():
    call = Call(load_study(in_process.STUDY, "the study"))
    assert analyses.asked(call) == []
    assert analyses.all_tables(call) == []
    asks = Call(load_study(in_process.STUDY | {"analysis": ["latency"]}, "the study"))
    assert analyses.all_tables(asks) == ["results/tiny/tables/latency.csv"]
    assert analyses.asked(Call(asks.study, partial=True)) == []
