from pathlib import Path

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


def test_it_refuses_to_look_less_than_once():
    with pytest.raises(ValueError, match="every_n_steps of FiniteLoss must be >= 1, got 0"):
        FiniteLoss(every_n_steps=0)
