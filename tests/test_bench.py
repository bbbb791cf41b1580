"""The benchmark compares like with like."""

import published
import pytest
import throughput
import torch
from torch.utils.data import DataLoader

from hiddencost import backbone
from hiddencost.engine import Plan, PromptedNetwork, train_prompts
from hiddencost.protocol import RunProtocol

RECIPE = {"epochs": 3, "learning_rate": 0.01, "milestones": [], "gamma": 0.1, "batch_size": 10, "shuffle": False}
PROTOCOL = RunProtocol(
    **RECIPE, test_batch_size=8, canvas=published.CANVAS, image_size=32, mapping_interval=1, precision="fp32"
)


def test_the_published_loop_learns_what_the_engine_learns(mobilenetv2, threads):
    network, _, manifest = backbone.load(mobilenetv2)
    mean, std = backbone.normalisation(manifest, torch.device("cpu"))
    images, labels = throughput.noise(10, 32)

    prompt = published.Prompt(32, mean, std)
    adam = torch.optim.Adam(prompt.parameters(), lr=0.01)
    loader = DataLoader(published.Images(images, labels), batch_size=10)
    mappings, losses = [], []
    for _ in range(3):
        mappings.append(published.map_labels(network, prompt, 10, loader))
        losses.append(published.train_epoch(network, prompt, adam, mappings[-1], loader))

    folded = backbone.for_inference(network, torch.device("cpu"))
    prompted = PromptedNetwork(folded, mean, std, PROTOCOL, Plan(0.75))
    ((_, run),) = train_prompts(prompted, images, labels, 10, [("ilm", range(10))], 0, PROTOCOL)
    assert run.mappings == [mapping.tolist() for mapping in mappings]
    torch.testing.assert_close(torch.tensor(run.losses), torch.tensor(losses), rtol=1e-3, atol=1e-3)
    logits = prompted.test_logits(images, prompt.program.detach())[:, run.mapping]
    assert published.test(network, prompt, mappings[-1], loader) == (logits.argmax(1) == labels).float().mean()


def test_ratios_and_packs_are_put_together_from_their_parts(monkeypatch, capsys):
    default, tuned = {"memory": 2.0, "step": 0.08, "test": 0.02}, {"memory": 2.0, "step": 0.04, "test": 0.01}
    engine = {"memory": 1.0, "step": 0.01, "test": 0.005, "ilm": 0.0125, "epoch of 10": 0.5, "epoch of 100": 4.0}
    engine |= {"precision": "fp32", "flop": 1e9, "flop_whole": 2e9, "matrix_rate": 2e11, "plan": "border once"}

    def in_process(side, network, size, plans, environment):
        return {"plan": {}, "engine": engine, "published": tuned if environment else default}[side]

    monkeypatch.setattr(throughput, "in_process", in_process)
    records = throughput.compare("resnet18", 32)
    assert [record["ratio"] for record in records[:3]] == [8, 8, 4]
    assert [record["ratio_same_allocator"] for record in records[:3]] == [4, 4, 2]
    # three runs of 100 epochs, a mapping pass for flm and one an epoch for ilm; 10,000 test images once or an epoch
    pack = 100 * 0.5 + (10 + 30_000) * 0.005
    assert records[3]["engine_ms"] == records[4]["engine_ms"] == pytest.approx(1e3 * pack)
    assert records[3]["baseline_ms"] == pytest.approx(1e3 * (300 * 0.8 + 101 * 0.2 + 30_000 * 0.02))
    assert records[4]["baseline_ms"] == pytest.approx(1e3 * (300 * 0.8 + 101 * 0.2 + 100 * 30_000 * 0.02))
    assert records[0]["share_of_matrix_rate"] == 0.5
    text = throughput.table(records)
    assert "| resnet18 | 32 | training step, an image | 80.0 ms | 10.0 ms | 8.0x | 4.0x |" in text
    assert "| resnet18 | 32 | 2.00 | 1.00 | 100 | 50% | 2.0 | 1.0 | border once |" in text
    assert "8.0x" in capsys.readouterr().out
