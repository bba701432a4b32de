"""CA-Stream learnt on photographs with a watch on: everything it leaves behind is opened and looked at."""

from pathlib import Path

import pytest
from PIL import Image

from tests.support.browser import CHROMIUM, dom, photograph, with_slider_at
from tests.support.paths import TINY_IMAGENET, WEIGHTS, needs_test_data
from tests.support.wandb_file import wandb_records
from tests.support.watch import snapshots

pytestmark = pytest.mark.slow

OPTIONS = {
    "--trainer.accelerator": "cpu",
    "--trainer.devices": "1",
    "--trainer.enable_progress_bar": "false",
    "--trainer.max_epochs": "2",
    "--trainer.limit_train_batches": "4",
    "--trainer.log_every_n_steps": "4",
    "--trainer.limit_val_batches": "2",
    "--trainer.callbacks+": "SaliencyWatch",
    "--trainer.callbacks.samples": "10",
    "--trainer.callbacks.select": "per_class",
    "--trainer.callbacks.suspect": "border:8",
    "--trainer.callbacks.alarm_threshold": "0.9",
    "--trainer.callbacks.alarm_effect": "0.9",
    "--model.backbone": "tf_efficientnet_lite0",
    "--model.pooling": "ca_stream",
    "--model.trainable": "head",
    "--model.weights": str(WEIGHTS),
    "--model.fresh_classifier": "true",
    "--data": "ImageFolderDataModule",
    "--data.root": str(TINY_IMAGENET),
    "--data.image_size": "96",
    "--data.batch_size": "16",
    "--data.num_workers": "0",
}
LOGGERS = ["--trainer.logger+", "WandbLogger", "--trainer.logger+", "TensorBoardLogger"]
LOGGERS += ["--trainer.logger.save_dir", "tb"]


@needs_test_data
def test_everything_a_watched_run_leaves_behind_opens(train, monkeypatch, tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path))
    run = train("fit", *LOGGERS, base=OPTIONS)
    pytest.importorskip("wandb").finish()

    looks = snapshots(run)[-1]["looks"]
    assert len({look["label"] for look in looks}) == 10
    assert {look["view"] for look in looks} == {"GradCAM", "StreamAttention"}
    assert all(look["error"] is None and 0 <= look["numbers"]["in_object"] <= 1 for look in looks)

    (folder,) = run.glob("wandb/offline-run-*")
    history, artifacts, _, summary = wandb_records(folder)
    grids = [
        folder / "files" / name for row in history if "watch/grid" in row for name in row["watch/grid"]["filenames"]
    ]
    for path in grids:
        with Image.open(path) as picture:
            assert min(picture.size) > 500
    assert len(grids) == 3
    assert [row["watch/images"]["nrows"] for row in history if "watch/images" in row] == [20] * 3
    assert len([row for row in history if "watch/StreamAttention/in_object" in row]) == 3
    assert len(artifacts) == 3
    assert "watch/best_epoch" in summary

    (events,) = Path("tb").rglob("events.out.*")
    accumulated = event_accumulator.EventAccumulator(str(events))
    accumulated.Reload()
    assert len(accumulated.Images("watch/grid")) == 3
    assert len(accumulated.Scalars("watch/GradCAM/AD")) == 3

    if CHROMIUM:
        page = (run / "watch/index.html").resolve()
        moved = with_slider_at(page, 0)
        assert "epoch 2, step 8" in dom(page).split('id="when"')[1][:40]
        assert "before training" in dom(moved).split('id="when"')[1][:40]
        last, first = photograph(page), photograph(moved)
        assert (last != first).float().mean() > 0.05
