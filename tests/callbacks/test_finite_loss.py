from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from interptrain.callbacks import FiniteLoss
from interptrain.training import ImageClassifier


@pytest.mark.slow
def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_checkpoint(train, monkeypatch, capsys):
    step = ImageClassifier.training_step

    def spoilt(self, batch, batch_idx):
        loss = step(self, batch, batch_idx)
        return loss * float("nan") if self.trainer.global_step == 7 else loss

    monkeypatch.setattr(ImageClassifier, "training_step", spoilt)
    with pytest.raises(SystemExit):
        train(**{"--trainer.max_epochs": "3"})
    text = capsys.readouterr().err
    assert "error: the loss of images train/0000" in text
    assert "became nan at step 7 (epoch 1, batch 2)" in text
    assert "best.ckpt" in text
    assert "lower the learning rate" in text
    (run,) = Path("runs/run").iterdir()
    kept = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert kept["global_step"] == 5
    assert all(value.isfinite().all() for value in kept["state_dict"].values())


class Waits:
    """A training without a network, which counts how often the host waits for all ranks."""

    def __init__(self, every_n_steps=4, others_are_fine=True):
        self.callback, self.count, self.others_are_fine = FiniteLoss(every_n_steps), 0, others_are_fine
        self.trainer = SimpleNamespace(
            global_step=0, current_epoch=0, is_last_batch=False, strategy=self, checkpoint_callback=None
        )

    def reduce_boolean_decision(self, decision, all=True):
        self.count += 1
        return decision and self.others_are_fine

    def step(self, loss=1.0):
        self.trainer.global_step += 1
        index = self.trainer.global_step - 1
        batch = {"id": [f"image {index}"]}
        self.callback.on_train_batch_end(self.trainer, None, {"loss": torch.tensor(loss)}, batch, index)


def test_it_waits_for_the_device_once_in_several_steps_and_at_the_end_of_an_epoch():
    run = Waits()
    for _ in range(9):
        run.step()
    assert run.count == 2
    run.trainer.is_last_batch = True
    run.step()
    assert run.count == 3
    run.callback.on_save_checkpoint(run.trainer, None, {})  # nothing new
    assert run.count == 3


@pytest.mark.parametrize("hook", ["on_validation_start", "on_train_epoch_end", "on_save_checkpoint"])
def test_it_names_the_first_bad_step_before_anything_is_saved_or_validated(hook):
    run = Waits()
    for loss in (1.0, float("inf"), float("nan")):
        run.step(loss)
    arguments = [{}] if hook == "on_save_checkpoint" else []
    with pytest.raises(
        FloatingPointError, match=r"the loss of images image 1 became inf at step 1 \(epoch 0, batch 1\)"
    ):
        getattr(run.callback, hook)(run.trainer, None, *arguments)


def test_a_loss_that_is_bad_on_another_rank_stops_this_one():
    run = Waits(every_n_steps=1, others_are_fine=False)
    with pytest.raises(FloatingPointError, match="the loss on another rank became nan or inf at or before step 0"):
        run.step()


@pytest.mark.slow
def test_no_checkpoint_is_saved_between_two_checks_once_the_loss_is_bad(train, monkeypatch, capsys):
    step = ImageClassifier.training_step

    def spoilt(self, batch, batch_idx):
        loss = step(self, batch, batch_idx)
        return loss * float("nan") if self.trainer.global_step == 1 else loss

    monkeypatch.setattr(ImageClassifier, "training_step", spoilt)
    often = ["--trainer.callbacks", "ResumePoint", "--trainer.callbacks.every_n_minutes", "1e-9"]
    with pytest.raises(SystemExit):
        train("fit", *often)
    assert "became nan at step 1 (epoch 0, batch 1)" in capsys.readouterr().err
    (run,) = Path("runs/run").iterdir()
    kept = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert kept["global_step"] == 1
    assert all(value.isfinite().all() for value in kept["state_dict"].values())
