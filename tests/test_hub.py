"""Learned models on the Hugging Face Hub, of which `hub_stand_in` answers here."""

import errno
import os
import re
import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from hub_stand_in import TOKEN, Hub, Repository
from huggingface_hub import ModelCard, constants
from made_classifier import ABOUT, make_classifier
from PIL import Image

import hiddencost

BEFORE = {key: value for key, value in ABOUT["origin"].items() if key not in ("published", "trained")}
IMAGES = torch.randint(256, (4, 3, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The Hub, as the client finds it that HF_ENDPOINT, HF_HOME and HF_TOKEN were given to before it was imported."""
    hub = Hub()
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # another protocol, of a library in Rust
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield hub
    hub.stop()


@pytest.mark.parametrize("method", ["flm", "fm", "lp"])
def test_what_is_pushed_is_loaded_again(hub, method):
    model = make_classifier(method)
    address = hiddencost.push(model, "hf://ana/fruit")
    assert address == f"hf://ana/fruit@{hub.repositories['ana/fruit'].branches['main']}"
    for place in (address, "hf://ana/fruit", "hf://ana/fruit/model.safetensors", "hf://models/ana/fruit@main"):
        again = hiddencost.load(place)
        assert again(IMAGES).equal(model(IMAGES))
        assert again.about == model.about
    puts = [path for command, path in hub.asked if command == "POST" and path.endswith("/commit/main")]
    assert len(puts) == 1


def test_another_process_finds_the_hub_by_its_environment(hub, tmp_path):
    model = make_classifier()
    hiddencost.push(model, "hf://ana/fruit")
    code = "import hiddencost; print(hiddencost.load('hf://ana/fruit').classes)"
    environment = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True)
    assert done.stdout.strip() == str(model.classes), done.stderr
    assert list((tmp_path / "home/hub/models--ana--fruit").rglob("model.safetensors"))


def test_a_commit_stays_what_it_is(hub):
    first, second = make_classifier(), make_classifier()
    second.prompt.zero_()
    before, after = hiddencost.push(first, "hf://ana/fruit"), hiddencost.push(second, "hf://ana/fruit")
    assert after != before
    assert hiddencost.load(before)(IMAGES).equal(first(IMAGES))
    assert hiddencost.load("hf://ana/fruit")(IMAGES).equal(second(IMAGES))


def test_a_model_that_is_there_is_no_new_commit(hub):
    addresses = {hiddencost.push(make_classifier(), "hf://ana/fruit") for _ in range(8)}
    assert len(addresses) == 1
    assert len(hub.repositories["ana/fruit"].commits) == 2  # with the one that a repository begins with
    other = make_classifier(run=ABOUT["run"] | {"method": "flm", "accuracy": 0.5})
    assert hiddencost.push(other, "hf://ana/fruit") not in addresses


def test_a_disk_that_is_full_is_told_as_that(hub, monkeypatch):
    hiddencost.push(make_classifier(), "hf://ana/fruit")
    full = OSError(errno.ENOSPC, "No space left on device", "/cache/model.safetensors")

    def download(*_, **__):
        try:
            raise full
        except OSError as error:
            raise RuntimeError("of a library") from error

    monkeypatch.setattr("hiddencost.runs.hub.hf_hub_download", download)
    with pytest.raises(OSError, match=r"No space left on device: '/cache/model\.safetensors'$") as raised:
        hiddencost.load("hf://ana/fruit")
    assert raised.value is full


def test_what_was_loaded_once_needs_no_hub(hub):
    model = make_classifier()
    address = hiddencost.push(model, "hf://ana/fruit")
    hiddencost.load("hf://ana/fruit")
    hub.stop()
    for place in ("hf://ana/fruit", address):
        assert hiddencost.load(place)(IMAGES).equal(model(IMAGES))


def card_of(hub, name="ana/fruit"):
    repository = hub.repositories[name]
    return repository.commits[repository.branches["main"]]["README.md"].decode()


def test_the_card_says_what_the_model_is(hub):
    hiddencost.push(make_classifier(), "hf://ana/fruit")
    card = ModelCard(card_of(hub))
    (result,) = card.data.eval_results
    assert (result.dataset_name, result.metric_type, result.metric_value) == ("fruit", "accuracy", 0.625)
    assert card.data.pipeline_tag == "image-classification"
    rows = dict(re.findall(r"^\| (.+?) \| (.+) \|$", card.text, re.MULTILINE))
    told = {"test accuracy": "62.5%", "network": "small", "weights": "mobilenetv2", "method": "FLM-VP", "seed": "0"}
    told |= {"compression": "magnitude, sparsity 30.0%", "classes": "apple, pear, plum", "images a class": "2"}
    assert told.items() <= rows.items()
    assert "licence: BSD-3-Clause (torchvision)" in card.text


@pytest.mark.parametrize(
    ("method", "settings", "told"),
    [
        ("lp", {}, "was learned is its last layer"),
        ("ilm", {"origin": None}, "| network | small |"),
        ("ilm", {"classes": [f"fruit {number}" for number in range(25)]}, "fruit 19 and 5 more |"),
        ("ilm", {"classes": ["a|b", "c\nd", "e"]}, r"| classes | a\|b, c d, e |"),
        ("ilm", {"origin": ABOUT["origin"] | {"control": "random_init"}}, "| control | random_init |"),
        ("ilm", {"origin": BEFORE}, "weights and the images are others' work"),
    ],
)
def test_a_card_is_made_of_any_model(hub, method, settings, told):
    hiddencost.push(make_classifier(method, **settings), "hf://ana/fruit")
    assert told in card_of(hub)


@pytest.mark.parametrize(
    ("origin", "told"),
    [
        ({"control": "random_init", "compression": "none"}, "are random: nobody has trained or published them."),
        (BEFORE | {"control": "random_init", "compression": "none"}, "are random: nobody has"),
        ({"published": None}, "are of a file of the user's own, whose licence is not known here."),
        ({"published": None, "trained": True}, "were trained by a study of hiddencost."),
    ],
)
def test_a_card_credits_nobody_whose_weights_are_not_in_it(hub, origin, told):
    settings = {"origin": (origin if "checkpoint" in origin else ABOUT["origin"] | origin)}
    hiddencost.push(make_classifier("ilm", **settings), "hf://ana/fruit")
    card = card_of(hub)
    assert f"The network's weights {told}" in card
    assert "BSD-3-Clause" not in card
    is_random = settings["origin"]["control"] == "random_init"
    assert ("| weights | mobilenetv2" in card) != is_random


@pytest.mark.parametrize("change", [{"control": "shuffled"}, {"checkpoint": "mine", "trained": True}])
def test_a_card_credits_whose_weights_it_is_made_of(hub, change):
    hiddencost.push(make_classifier("ilm", origin=ABOUT["origin"] | change), "hf://ana/fruit")
    was = "They were trained from published ones" if "trained" in change else "The network's weights"
    assert re.search(rf"{was}: .*; licence: BSD-3-Clause \(torchvision\)\.", card_of(hub))


def test_the_example_of_a_card_runs(hub, tmp_path, monkeypatch, capsys):
    Image.new("L", (50, 40), 90).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    model = make_classifier()
    hiddencost.push(model, "hf://ana/fruit")
    (example,) = re.findall(r"```python\n(.+?)```", card_of(hub), re.DOTALL)
    exec(example, {})
    expected = model.classes[model(model.transform(["photo.jpg"])).argmax()]
    assert re.fullmatch(rf"{expected} \d+%\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("address", "error", "told"),
    [
        ("hf://ana/other", FileNotFoundError, "there is no such repository, or not for you; HF_TOKEN or"),
        ("hf://ana/secret", None, None),
        ("hf://ana/fruit@v2", FileNotFoundError, "the repository has no such revision"),
        ("hf://ana/fruit/other.safetensors", FileNotFoundError, "the repository has no such file"),
        ("hf://ana/fruit/README.md", ValueError, "not a safetensors file, or a damaged one"),
        ("hf://fruit", ValueError, r"expected hf://USER/REPO\[@REVISION\]\[/FILE\]"),
        ("hf://datasets/ana/fruit", ValueError, "a dataset; expected"),
        ("hf://", ValueError, "expected hf://USER/REPO"),
    ],
)
def test_what_cannot_be_loaded_from_the_hub_is_told_in_a_line(hub, address, error, told):
    hiddencost.push(make_classifier(), "hf://ana/fruit")
    hub.repositories["ana/secret"] = Repository(private=True)
    hub.repositories["ana/secret"].commit(hub.repositories["ana/fruit"].commits[main_of(hub)])
    if error is None:
        hiddencost.load(address)
        return
    with pytest.raises(error, match=told) as raised:
        hiddencost.load(address)
    assert "\n" not in str(raised.value)


def main_of(hub):
    return hub.repositories["ana/fruit"].branches["main"]


def test_a_private_repository_is_not_there_for_others(hub, monkeypatch):
    hub.repositories["ana/fruit"] = Repository(private=True)
    hub.repositories["ana/fruit"].commit({})
    hiddencost.push(make_classifier(), "hf://ana/fruit")
    assert hub.repositories["ana/fruit"].private
    monkeypatch.setenv("HF_TOKEN", "hf_of_another")
    with pytest.raises(FileNotFoundError, match=r"^hf://ana/fruit: there is no such repository, or not for you"):
        hiddencost.load("hf://ana/fruit")


def test_the_hub_refuses_who_may_not(hub, monkeypatch):
    model = make_classifier()
    with pytest.raises(PermissionError, match=r"^hf://ben/fruit: the Hub refuses: .*403") as raised:
        hiddencost.push(model, "hf://ben/fruit")
    assert "\n" not in str(raised.value)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(PermissionError, match=r"^hf://ana/fruit: the Hub refuses: .*401.* expected HF_TOKEN"):
        hiddencost.push(model, "hf://ana/fruit")
    assert not hub.repositories


@pytest.mark.parametrize("address", ["ana/fruit", "hf://ana/fruit@main", "hf://ana/fruit/a.safetensors", "hf://ana"])
def test_a_model_is_pushed_to_a_repository_alone(hub, address):
    with pytest.raises(ValueError, match="expected hf://USER/REPO"):
        hiddencost.push(make_classifier(), address)


def test_a_hub_that_does_not_answer_is_told_in_a_line(hub):
    hub.stop()
    for ask in (
        lambda: hiddencost.load("hf://ana/fruit"),
        lambda: hiddencost.push(make_classifier(), "hf://ana/fruit"),
    ):
        with pytest.raises(ConnectionError, match=r"^hf://ana/fruit: .*refused") as raised:
            ask()
        assert "\n" not in str(raised.value)


def test_a_run_is_not_chosen_of_a_file_on_the_hub(hub):
    with pytest.raises(ValueError, match=r"^hf://ana/fruit: a file holds one run; expected no shots beside it"):
        hiddencost.load("hf://ana/fruit", shots=2)
    assert not hub.asked
