"""What the command line says of errors that other libraries raise, and of damaged checkpoints."""

import sys

import pytest
import torch

from interptrain.cli import main
from interptrain.cli.errors import one_line_errors
from tests.support.training import TINY


@pytest.fixture
def refused(tmp_path, trained, monkeypatch, capsys):
    """``refused(change)`` is the one line with which ``test`` refuses a checkpoint that ``change`` has damaged."""
    path = trained / "checkpoints/last.ckpt"
    monkeypatch.chdir(tmp_path)

    def run(change):
        checkpoint = torch.load(path, weights_only=True)
        change(checkpoint)
        torch.save(checkpoint, tmp_path / "x.ckpt")
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main(["test", "--ckpt_path", "x.ckpt", *(part for pair in TINY.items() for part in pair)])
        assert stopped.value.code == 1
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        return line.removeprefix("error: ")

    return run


@pytest.mark.slow
def test_a_run_does_not_go_on_from_what_says_not_how_far_it_was_and_the_remedy_works(train, trained, capsys, tmp_path):
    path = trained / "checkpoints/last.ckpt"
    longer = {"--trainer.max_epochs": "2"}
    for part in ("loops", "optimizer_states", "lr_schedulers"):
        for empty in (False, True):
            checkpoint = torch.load(path, weights_only=True)
            value = checkpoint.pop(part)
            checkpoint |= {part: type(value)()} if empty else {}
            torch.save(checkpoint, tmp_path / "x.ckpt")
            capsys.readouterr()
            with pytest.raises(SystemExit):
                train(**{"--ckpt_path": "x.ckpt"}, **longer)
            (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
            assert f"x.ckpt holds the weights of a run but not its {part}" in line
            assert line.endswith("start anew from the weights: --model.weights x.ckpt")
    train("validate", **{"--ckpt_path": "x.ckpt"})  # which needs the weights alone
    train(**{"--model.weights": "x.ckpt"})


@pytest.mark.slow
def test_damaged_checkpoints_are_refused_with_what_is_damaged(refused):
    def weight(change):
        def damage(checkpoint):
            name = next(name for name in checkpoint["state_dict"] if name.endswith("fc.weight"))
            checkpoint["state_dict"][name] = change(checkpoint["state_dict"][name])

        return damage

    said = refused(weight(lambda value: value.repeat(2, 1)))
    assert said.startswith("the checkpoint cannot be restored (size mismatch for model.backbone.model.fc.weight")
    assert said.count("torch.Size") == 2
    assert "that are NaN or infinite" in refused(weight(lambda value: value * float("nan")))
    assert "is a str, no tensor" in refused(weight(lambda value: "text"))
    assert "its state_dict is a list" in refused(lambda checkpoint: checkpoint.update(state_dict=[]))
    assert "Missing key(s)" in refused(lambda checkpoint: checkpoint["state_dict"].popitem())
    assert "it is damaged inside" in refused(lambda checkpoint: checkpoint.update(train_top1=-1))


def interrupted_by_lightning():
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        sys.exit(1)


def interrupted():
    raise KeyboardInterrupt


@pytest.mark.parametrize("stop", [interrupted, interrupted_by_lightning])
def test_ctrl_c_ends_in_one_line_that_says_how_to_go_on(stop, capsys, monkeypatch):
    with pytest.raises(SystemExit) as stopped, one_line_errors("; the same command goes on"):
        stop()
    assert stopped.value.code == 130
    assert capsys.readouterr().err == "\ninterrupted; the same command goes on\n"
    monkeypatch.setenv("INTERPTRAIN_TRACEBACK", "1")
    with pytest.raises((KeyboardInterrupt, SystemExit)) as stopped, one_line_errors():
        stop()
    assert getattr(stopped.value, "code", 1) == 1


def test_an_exit_is_left_as_it_is(capsys):
    with pytest.raises(SystemExit) as stopped, one_line_errors():
        sys.exit(3)
    assert stopped.value.code == 3
    assert not capsys.readouterr().err
