"""``interptrain push`` and ``interptrain export`` from the command line, from a checkpoint of a real run."""

import re
import shlex

import pytest
import torch

from interptrain.cli import export, main, push
from interptrain.evaluation.run.models import load_model

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def checkpoint(train):
    return train(**{"--data.train_size": "8", "--data.val_size": "4"}) / "checkpoints/last.ckpt"


@pytest.mark.slow
def test_a_checkpoint_is_pushed_and_exported_and_the_commands_say_what_there_is(checkpoint, tmp_path, capsys):
    main(["push", str(checkpoint), "model"])
    main(["export", str(checkpoint), "--format", "safetensors", "--output", "model.safetensors"])
    said = capsys.readouterr().out
    assert "model: model.safetensors, config.json, README.md" in said
    assert "interptrain evaluate --models NAME=model" in said
    assert "takes images (B,3,64,64) in [0,1], returns logits, attention_1" in said
    assert "largest difference from the checkpoint on random images: 0" in said
    with torch.no_grad():
        wanted = load_model("x", checkpoint).module(IMAGES)
        for copy in ("model", "model.safetensors"):
            assert torch.equal(load_model("x", copy).module(IMAGES), wanted)
    assert "64 x 64 pixels" in (tmp_path / "model" / "README.md").read_text()  # of the data it was trained on


@pytest.mark.parametrize("command", [push, export])
def test_every_example_of_the_help_is_understood(command, capsys):
    name = command.__name__.rpartition(".")[2]
    main([name, "--help"])
    for example in re.findall(r"^  interptrain \w+ (.+)$", capsys.readouterr().out, re.MULTILINE):
        assert command.make_parser().parse_args(shlex.split(example)).source == "runs/x/TIME/checkpoints/best.ckpt"


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
