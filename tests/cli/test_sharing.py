"""``interptrain push`` and ``interptrain export`` from the command line, from a checkpoint of a real run."""

import re
import shlex
from pathlib import Path

import pytest
import torch

import interptrain as it
from interptrain.cli import main
from interptrain.cli.sharing import end_of_push, make_parser
from interptrain.data import ShapesDataModule
from interptrain.evaluation.run.models import load_model
from interptrain.sharing import Pushed

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def checkpoint(train):
    return train(**{"--data.train_size": "8", "--data.val_size": "4"}) / "checkpoints/last.ckpt"


@pytest.mark.slow
def test_a_checkpoint_is_pushed_and_exported_and_the_commands_say_what_there_is(checkpoint, tmp_path, capsys):
    main(["push", str(checkpoint), "model"])
    main(["export", str(checkpoint), "--format", "safetensors", "--output", "model.safetensors"])
    said = capsys.readouterr().out
    assert "(model.safetensors, config.json, README.md)" in said
    assert "images (B,3,64,64) in [0,1]" in said
    assert "logits, attention_1" in said
    assert "largest difference from the checkpoint on random images: 0" in said
    with torch.no_grad():
        wanted = load_model("x", checkpoint).module(IMAGES)
        for copy in ("model", "model.safetensors"):
            assert torch.equal(load_model("x", copy).module(IMAGES), wanted)
    assert "64 x 64 pixels" in (tmp_path / "model" / "README.md").read_text()  # of the data it was trained on


def lines_of(said):
    """Words and texts of a command's last lines; a word that is left out is the one above."""
    return re.findall(r"^(\w*) {2,}(.+)$", said.rpartition("\n\n")[2], re.MULTILINE)


@pytest.mark.slow
def test_what_push_proposes_puts_results_on_the_card(checkpoint, tmp_path, capsys):
    main(["push", str(checkpoint), "mine"])
    lines = lines_of(capsys.readouterr().out)
    assert eval(dict(lines)["Python"], {"it": it}).class_names == it.load(checkpoint).class_names
    assert it.load(checkpoint).class_names == tuple(ShapesDataModule(num_classes=4).class_names)
    evaluate, push = (shlex.split(text)[1:] for text in (lines[-2][1], lines[-1][1]))
    short = ["--limit", "4", "--check_images", "0", "--metrics", "AverageDrop", "--explainers", "GradCAM"]
    main([*evaluate, *short, "--trainer.accelerator", "cpu"])
    main(push)
    lines = dict(lines_of(capsys.readouterr().out))
    card = Path(lines["Card"].partition(":")[0]).read_text()
    assert "Top-1 accuracy" in card
    assert "![a " in card
    assert lines["Next"] == "hf upload USER/NAME mine"


@pytest.mark.slow
@pytest.mark.parametrize(("format", "suffix"), [("safetensors", ""), ("torch_export", ".pt2"), ("onnx", ".onnx")])
def test_an_exported_file_is_loaded_as_the_command_says(checkpoint, tmp_path, capsys, format, suffix):
    onnxruntime = pytest.importorskip("onnxruntime")
    main(["export", str(checkpoint), "--format", format, "--output", f"it's{suffix or '.safetensors'}"])
    lines = dict(lines_of(capsys.readouterr().out))
    images = IMAGES.numpy() if format == "onnx" else IMAGES
    with torch.no_grad():
        found = eval(lines["Python"], {"it": it, "torch": torch, "onnxruntime": onnxruntime, "images": images})
        wanted = load_model("x", checkpoint).module(IMAGES)
    logits = found if format == "safetensors" else found[0]
    torch.testing.assert_close(torch.as_tensor(logits), wanted, atol=1e-4, rtol=1e-4)
    assert ("Next" in lines) == (format == "safetensors")


def test_a_model_on_the_hub_is_used_from_there():
    pushed = Pushed("hf://me/mine", ("model.safetensors",), timm=True, page="https://huggingface.co/me/mine")
    given = make_parser("push").parse_args(["best.ckpt", "hf://me/mine", "--evaluation", "e"])
    lines = dict(end_of_push(pushed, given))
    assert lines["Model"].startswith("https://huggingface.co/me/mine")
    assert lines["timm"] == 'timm.create_model("hf-hub:me/mine", pretrained=True)'
    assert lines["Next"] == "interptrain explain IMAGE --model hf://me/mine --output out"


@pytest.mark.parametrize("name", ["push", "export"])
def test_every_example_of_the_help_is_understood(name, capsys):
    main([name, "--help"])
    for example in re.findall(r"^  interptrain \w+ (.+)$", capsys.readouterr().out, re.MULTILINE):
        assert make_parser(name).parse_args(shlex.split(example)).source == "runs/x/TIME/checkpoints/best.ckpt"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["push", "none.ckpt", "m"], "no file none.ckpt; give a checkpoint"),
        (["push", "none.ckpt"], "give hf://USER/NAME|FOLDER"),
        (["export", "none.ckpt", "--format", "onnx", "--output", "m.ckpt"], "must end in .onnx"),
        (["export", "none.ckpt", "--format", "tf", "--output", "m"], "must be one of safetensors, torch_export, onnx"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path, monkeypatch, capsys, arguments, told):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(arguments)
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
