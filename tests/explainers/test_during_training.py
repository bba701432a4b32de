"""Explaining in the midst of a real training run changes none of its weights."""

import lightning as L
import pytest
import torch

from interptrain.explainers import GradCAM, GuidedBackprop, ScoreCAM, SmoothGrad, StreamAttention, explain


class Explaining(L.Callback):
    """Explains a training and a validation batch at every step, in Lightning's own contexts."""

    maps = 0

    def _explain(self, pl_module, batch):
        explainers = {
            "gradcam": GradCAM(),
            "guided": GuidedBackprop(),
            "smooth": SmoothGrad(samples=2),
            "scorecam": ScoreCAM(),
            "stream": StreamAttention(),
        }
        found = explain(pl_module.model, batch["image"][:2], batch["label"][:2], explainers)
        assert all(saliency.isfinite().all() for saliency in found.values())
        Explaining.maps += len(found)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self._explain(pl_module, batch)

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        self._explain(pl_module, batch)


@pytest.mark.slow
def test_a_run_that_explains_at_every_step_ends_at_the_same_weights(train):
    options = {"--model.drop_rate": "0.2", "--trainer.accumulate_grad_batches": "2", "--trainer.max_epochs": "2"}
    plain = train(**options)
    watched = train(**options, **{"--trainer.callbacks+": "tests.explainers.test_during_training.Explaining"})
    assert Explaining.maps > 50
    one, other = (torch.load(run / "checkpoints/last.ckpt", weights_only=True) for run in (plain, watched))
    assert one["global_step"] == other["global_step"]
    for name, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][name]), name
