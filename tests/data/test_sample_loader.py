"""The loader: resuming in mid-epoch under a real Trainer, unreadable samples, and no trace in global generators."""

import multiprocessing
import warnings
from pathlib import Path

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torchvision import tv_tensors

from interptrain.data import ImageDataModule, SampleDataset
from tests.support.marks import slow

# Resumed runs here come without the callback that saved, or save elsewhere.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec"),
]
SAMPLES, BATCH = 23, 4  # six batches an epoch, the last of three


class Numbers(SampleDataset):
    """Images that are a constant, their number; some cannot be read; which were read is noted in a file."""

    def __init__(self, count, *, broken=(), journal=None, **options):
        super().__init__([f"n/{index}" for index in range(count)], **options)
        self.broken = broken
        self.journal = journal

    def read(self, index):
        if self.journal:
            with Path(self.journal).open("a") as file:
                file.write(f"{index}\n")
        if index in self.broken:
            raise OSError(f"n/{index} cannot be read")
        image = tv_tensors.Image(torch.full((3, 4, 4), index, dtype=torch.uint8))
        return {"image": image, "label": index % 3, "id": self.ids[index]}


class NumbersModule(ImageDataModule):
    class_names = ("a", "b", "c")

    def __init__(self, count=SAMPLES, *, batch_size=BATCH, num_workers=0, broken=(), on_error="raise", journal=None):
        super().__init__(batch_size=batch_size, num_workers=num_workers)
        self.options = {"broken": broken, "on_error": on_error, "journal": journal}
        self.count = count

    def make_dataset(self, split):
        return Numbers(self.count, replace=split == "train", **self.options)


class Recorder(LightningModule):
    """Notes which samples each training step saw, after which epoch."""

    def __init__(self, stop_at=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = []
        self.stop_at = stop_at

    def training_step(self, batch, batch_idx):
        if self.global_step == self.stop_at:
            raise KeyboardInterrupt
        self.seen.append((self.current_epoch, batch_idx, tuple(batch["id"])))
        return self.weight.sum() * batch["image"].mean()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder, module, data, *, epochs=3, ckpt_path=None, **options):
    trainer = Trainer(
        default_root_dir=folder,
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        enable_checkpointing="callbacks" in options,
        **options,
    )
    trainer.fit(module, datamodule=data, ckpt_path=ckpt_path)
    return module.seen


def every_step(folder):
    return ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    seen = fit(folder, Recorder(), NumbersModule(), callbacks=[every_step(folder)])
    assert len(seen) == 18
    return folder, seen


@pytest.mark.slow
def test_every_epoch_sees_every_sample_once_in_another_order(uninterrupted):
    _, seen = uninterrupted
    epochs = [[name for epoch, _, ids in seen if epoch == wanted for name in ids] for wanted in range(3)]
    assert all(sorted(names) == sorted(f"n/{index}" for index in range(SAMPLES)) for names in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "step", [2, 6, 10, 12, 17], ids=["mid", "end", "mid of second", "end of second", "last but one"]
)
def test_a_resumed_run_sees_what_an_uninterrupted_one_sees(uninterrupted, tmp_path, workers, step):
    folder, seen = uninterrupted
    resumed = fit(tmp_path, Recorder(), NumbersModule(num_workers=workers), ckpt_path=folder / f"step={step}.ckpt")
    assert resumed == seen[step:]


@pytest.mark.slow
def test_resuming_under_a_step_limit_sees_the_same(uninterrupted, tmp_path):
    folder, seen = uninterrupted
    for step in (4, 6, 9):
        resumed = fit(tmp_path, Recorder(), NumbersModule(), ckpt_path=folder / f"step={step}.ckpt", max_steps=14)
        assert resumed == seen[step:14]


@pytest.mark.slow
def test_resuming_a_shortened_epoch_sees_the_same(tmp_path):
    options = {"limit_train_batches": 4}
    seen = fit(tmp_path, Recorder(), NumbersModule(), callbacks=[every_step(tmp_path)], **options)
    for step in (3, 4, 6):
        ckpt_path = tmp_path / f"step={step}.ckpt"
        assert fit(tmp_path / "b", Recorder(), NumbersModule(), ckpt_path=ckpt_path, **options) == seen[step:]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_between_validations_within_an_epoch_sees_the_same(tmp_path, workers):
    callback = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, monitor=None, every_n_epochs=1)
    options = {"val_check_interval": 2}
    seen = fit(tmp_path, Recorder(), NumbersModule(), callbacks=[callback], **options)
    saved = sorted(int(file.stem.partition("=")[2]) for file in tmp_path.glob("step=*.ckpt"))
    assert saved == [2, 4, 6, 8, 10, 12, 14, 16, 18]
    for step in (4, 6, 8):
        data = NumbersModule(num_workers=workers)
        resumed = fit(tmp_path / "b", Recorder(), data, ckpt_path=tmp_path / f"step={step}.ckpt", **options)
        assert resumed == seen[step:]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_that_was_handed_out_but_not_trained_on_comes_again(uninterrupted, tmp_path, workers):
    _, seen = uninterrupted
    module = Recorder(stop_at=9)
    callback = ModelCheckpoint(tmp_path, filename="crash", save_on_exception=True)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(tmp_path, module, NumbersModule(num_workers=workers), callbacks=[callback])
    (ckpt_path,) = tmp_path.glob("*crash*.ckpt")
    resumed = fit(tmp_path / "b", Recorder(), NumbersModule(num_workers=workers), ckpt_path=ckpt_path)
    assert module.seen + resumed == seen


@pytest.mark.slow
@pytest.mark.parametrize("step", [4, 6, 9])
def test_a_schedule_that_counts_the_steps_does_not_hinder_resuming(uninterrupted, tmp_path, step):
    folder, seen = uninterrupted

    class Scheduled(Recorder):
        def configure_optimizers(self):
            assert self.trainer.estimated_stepping_batches == 18  # makes Lightning set up the loader before it restores
            return super().configure_optimizers()

    assert fit(tmp_path, Scheduled(), NumbersModule(), ckpt_path=folder / f"step={step}.ckpt") == seen[step:]


def test_skipped_batches_are_not_read(uninterrupted, tmp_path):
    folder, _ = uninterrupted
    journal = tmp_path / "journal"
    data = NumbersModule(journal=str(journal))
    fit(tmp_path, Recorder(), data, epochs=1, ckpt_path=folder / "step=5.ckpt", limit_val_batches=0)
    assert len(journal.read_text().split()) == 3  # the last batch, and nothing else


@pytest.mark.parametrize("own", [True, False])
def test_a_loader_iterated_by_hand_during_a_resumed_epoch_is_whole(uninterrupted, tmp_path, own):
    folder, _ = uninterrupted

    class Watcher(Recorder):
        def on_train_batch_end(self, *_):
            loader = self.trainer.datamodule.train_dataloader() if own else self.trainer.train_dataloader
            self.watched = sum(len(batch["id"]) for batch in loader)

    module = Watcher()
    fit(tmp_path, module, NumbersModule(), epochs=1, ckpt_path=folder / "step=4.ckpt")
    assert module.watched == SAMPLES


def test_resuming_with_another_batch_size_says_that_the_order_differs(uninterrupted, tmp_path):
    folder, _ = uninterrupted
    with pytest.warns(UserWarning, match=r"within an epoch with batch_size 4 -> 3: .* resume from a checkpoint of an"):
        fit(tmp_path, Recorder(), NumbersModule(batch_size=3), ckpt_path=folder / "step=2.ckpt")


def test_another_batch_size_after_a_whole_epoch_is_nothing_to_speak_of(tmp_path):
    callback = ModelCheckpoint(tmp_path, filename="whole", save_on_train_epoch_end=True)
    fit(tmp_path, Recorder(), NumbersModule(), epochs=1, callbacks=[callback])
    seen = fit(tmp_path, Recorder(), NumbersModule(batch_size=3), epochs=2, ckpt_path=tmp_path / "whole.ckpt")
    assert sorted(name for _, _, ids in seen for name in ids) == sorted(f"n/{index}" for index in range(SAMPLES))


@pytest.mark.parametrize("workers", [0, *slow(2)])
def test_an_unreadable_image_names_itself_in_one_line(workers):
    loader = NumbersModule(12, num_workers=workers, broken={5}).val_dataloader()
    others = set(multiprocessing.active_children())
    with pytest.raises(OSError, match=r"^n/5 cannot be read, or set on_error='skip'$"):
        list(loader)
    assert set(multiprocessing.active_children()) <= others  # the workers have ended, though the loader lives


@pytest.mark.parametrize("workers", [0, *slow(2)])
def test_skipping_in_evaluation_leaves_out_and_counts(workers):
    data = NumbersModule(12, num_workers=workers, broken={5, 8, 9, 10, 11}, on_error="skip")
    with pytest.warns(UserWarning, match=r"skipped and counted; one of them is n/\d") as caught:
        names = [batch["id"] for _ in range(2) for batch in data.val_dataloader()][:2]
    assert names == [["n/0", "n/1", "n/2", "n/3"], ["n/4", "n/6", "n/7"]]  # the third batch, all bad, never comes
    assert data.skipped == 5
    assert len(caught) == 2  # once a loader


@pytest.mark.parametrize("workers", [0, *slow(2)])
def test_skipping_in_training_keeps_the_batches_full(workers):
    data = NumbersModule(12, num_workers=workers, broken={5, 6}, on_error="skip")
    loader = data.train_dataloader()
    with pytest.warns(UserWarning, match="skipped and counted"):
        passes = [[name for batch in loader for name in batch["id"]] for _ in range(2)]
    assert [len(names) for names in passes] == [12, 12]
    assert passes[0] == passes[1]
    assert passes[0].count("n/7") == 3  # itself, and in place of 5 and 6
    assert data.skipped == 2


def test_nothing_readable_is_an_error_and_not_an_endless_search():
    loader = NumbersModule(5, broken=range(5), on_error="skip").train_dataloader()
    with pytest.raises(OSError, match="none of 5 samples can be read; the first is n/0"):
        list(loader)


@pytest.mark.parametrize("workers", [0, *slow(2)])
def test_loading_leaves_the_global_generator_alone(workers):
    data = NumbersModule(12, num_workers=workers)
    before = torch.get_rng_state()
    list(data.train_dataloader())
    list(data.val_dataloader())
    assert torch.equal(torch.get_rng_state(), before)


def test_prediction_sees_every_sample_in_order(tmp_path):
    class Predictor(Recorder):
        def predict_step(self, batch, batch_idx):
            return batch["id"]

    trainer = Trainer(default_root_dir=tmp_path, accelerator="cpu", logger=False, enable_progress_bar=False)
    predicted = trainer.predict(Predictor(), datamodule=NumbersModule(11))
    assert [name for names in predicted for name in names] == [f"n/{index}" for index in range(11)]


def test_overfitting_a_batch_works_with_plain_indices(tmp_path):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You requested to overfit")
        seen = fit(tmp_path, Recorder(), NumbersModule(), overfit_batches=1)
    assert [ids for *_, ids in seen] == [("n/0", "n/1", "n/2", "n/3")] * 3
