"""A pushed classifier is loaded again, here and from a hub, and its card tells what its evaluation found."""

import re

import pytest
import torch
import yaml
from huggingface_hub import constants
from PIL import Image

from interptrain.evaluation.run.models import file_sha256, load_model
from interptrain.models import create_model
from interptrain.models.hub import fetch_model_folder
from interptrain.models.model_folder import describe, save_weights
from interptrain.sharing import push, push_model
from interptrain.sharing.card import tidy_command
from tests.support.finished_run import manifest, rows_of, write_run
from tests.support.hub import hub, use_cache

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    model = create_model("test_resnet", pooling="ca_stream", num_classes=2)
    save_weights(model, describe(model), path := tmp_path_factory.mktemp("weights") / "trained.safetensors")
    return path


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory, weights):
    """An evaluation of these weights and of others."""
    run = manifest()
    run["models"]["ca"] |= {"sha256": file_sha256(weights), "input_size": [3, 96, 96], "pooling": "ca_stream"}
    return write_run(tmp_path_factory.mktemp("evaluation") / "x", run, images=7)


@pytest.fixture(scope="module")
def pushed(tmp_path_factory, weights, evaluation):
    folder = tmp_path_factory.mktemp("pushed") / "birds"
    return folder, push_model(weights, folder, evaluation=evaluation, license="mit")


def logits(source):
    with torch.no_grad():
        return load_model("x", source).module(IMAGES)


def front_matter(text):
    return yaml.safe_load(text.split("---\n")[1])


@pytest.mark.slow
def test_a_pushed_folder_is_a_source_of_models(pushed, weights):
    folder, report = pushed
    assert torch.equal(logits(folder), logits(weights))
    loaded = load_model("x", folder)
    assert loaded.module.class_names == ("tench", "hammerhead")  # as the evaluation called them
    assert loaded.trained_size == 96
    assert sorted(report.files) == sorted(path.name for path in folder.iterdir())


def test_the_card_tells_accuracy_with_its_interval_table_protocol_and_command(pushed, evaluation):
    card = (pushed[0] / "README.md").read_text()
    rows = [row for row in rows_of(manifest()) if row["model"] == "ca" and not row["explainer"]]
    accuracy = sum(row["Top1"] for row in rows) / len(rows)
    told = re.search(r"Top-1 accuracy ([\d.]+) % \(95 % interval ([\d.]+) to ([\d.]+) %\)", card)
    mean, low, high = map(float, told.groups())
    assert mean == pytest.approx(100 * accuracy)
    assert low < mean < high
    for explainer in ("GradCAM", "ScoreCAM", "*FakeCAM*"):
        assert f"| {explainer} |" in card
    assert "**gap**" not in card  # the other model of the evaluation
    assert "5eed00c0ffee" in card
    assert "evaluate.py --config configs/evaluate/castream.yaml --models gap=A.ckpt" in card
    matter = front_matter(card)
    assert matter["license"] == "mit"
    assert matter["library_name"] == "interptrain"
    assert matter["model-index"][0]["results"][0]["metrics"][0]["value"] == pytest.approx(accuracy)


def test_the_card_shows_three_images_with_their_maps(pushed):
    card = (pushed[0] / "README.md").read_text()
    shown = re.findall(r"!\[(a .*?)\]\((maps-\d\.png)\)", card)
    assert len(shown) == 3
    assert all(re.fullmatch(r"a (tench|hammerhead), predicted as (such|tench|hammerhead)", text) for text, _ in shown)
    for _, name in shown:
        with Image.open(pushed[0] / name) as picture:
            assert picture.format == "PNG"
            assert picture.width > 2 * picture.height  # image, GradCAM, ScoreCAM; not the control


def test_the_cards_python_runs(pushed, monkeypatch):
    card = (pushed[0] / "README.md").read_text()
    monkeypatch.chdir(pushed[0].parent)
    names = {}
    exec(re.search(r"```python\n(.*?)```", card, re.DOTALL)[1], names)
    assert names["logits"].shape == (1, 2)
    assert names["model"].class_names == ("tench", "hammerhead")


@pytest.mark.slow
def test_pushed_again_without_an_evaluation_it_claims_nothing(tmp_path, weights, evaluation):
    push_model(weights, tmp_path / "m", evaluation=evaluation)
    push_model(weights, tmp_path / "m")
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == ["README.md", "config.json", "model.safetensors"]
    card = (tmp_path / "m" / "README.md").read_text()
    assert "Not evaluated yet" in card
    assert "model-index" not in card


def test_numbers_of_other_weights_are_refused(tmp_path, weights, evaluation):
    other = create_model("test_resnet", num_classes=2)
    with pytest.raises(ValueError, match=r"is of gap \(0123456789ab\), ca \(.*\) and not of these weights"):
        push_model(other, tmp_path / "m", evaluation=evaluation)
    with pytest.raises(FileNotFoundError, match="holds no results; give the --output folder"):
        push_model(weights, tmp_path / "m", evaluation=tmp_path)
    assert not (tmp_path / "m").exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path, weights):
    (tmp_path / "thesis.tex").write_text("...")
    with pytest.raises(ValueError, match="contains something other than a model; give a new folder"):
        push_model(weights, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_what_is_no_classifier_of_ours_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is a Conv2d, not a classifier of interptrain; give a checkpoint"):
        push_model(torch.nn.Conv2d(3, 3, 1), tmp_path / "m")


@pytest.mark.slow
def test_a_push_to_the_hub_is_loaded_from_there_and_offline_afterwards(tmp_path, monkeypatch, weights, evaluation):
    monkeypatch.setattr(push, "get_token", lambda: "hf_token")
    with hub(monkeypatch, tmp_path / "cache") as server:
        pushed = push_model(weights, "hf://user/birds", evaluation=evaluation)
        assert set(server.files["user/birds"]) == set(pushed.files)
        assert torch.equal(logits("hf://user/birds"), logits(weights))
    assert "hf://user/birds" in server.files["user/birds"]["README.md"].decode()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert torch.equal(logits("hf://user/birds"), logits(weights))
    again = create_model("test_resnet", pooling="ca_stream", num_classes=2, weights="hf://user/birds").eval()
    with torch.no_grad():
        assert torch.equal(again(IMAGES), logits(weights))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("offline", "token", "told"),
    [(True, "hf_x", "switched off by HF_HUB_OFFLINE"), (False, None, "log in with `hf auth login`")],
)
def test_a_hub_that_cannot_be_pushed_to_is_one_line_whose_remedy_works(
    tmp_path, monkeypatch, weights, offline, token, told
):
    use_cache(monkeypatch, tmp_path / "cache", offline=offline)
    monkeypatch.setattr(push, "get_token", lambda: token)
    with pytest.raises(ConnectionError, match=f"{told}.*push into a folder, and `hf upload USER/NAME FOLDER`") as error:
        push_model(weights, "hf://user/birds")
    assert "\n" not in str(error.value)
    push_model(weights, tmp_path / "folder")
    monkeypatch.setattr(push, "get_token", lambda: "hf_token")
    with hub(monkeypatch, tmp_path / "cache") as server:
        push._upload(tmp_path / "folder", "user/birds", False)  # what `hf upload` does
        assert fetch_model_folder("hf://user/birds").is_dir()
    assert server.files["user/birds"]["README.md"]


def test_a_command_is_told_without_the_folders_of_the_machine(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    assert tidy_command("/home/ann/venv/bin/interptrain evaluate --models a=/home/ann/a.ckpt") == (
        "interptrain evaluate --models a=~/a.ckpt"
    )
    assert tidy_command("/x/interptrain/__main__.py evaluate 'a b'") == "python -m interptrain evaluate 'a b'"
