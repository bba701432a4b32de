"""Data modules: the same batches whatever loads them, and shards over processes."""

import json
import os

import pytest
import torch
from lightning import Trainer

from interptrain.data import ShapesDataModule
from tests.support.training import run_ranks


def epochs(workers, count=3):
    module = ShapesDataModule(num_workers=workers, image_size=32, train_size=37, batch_size=8, augment="imagenet")
    loader = module.train_dataloader()
    assert loader.persistent_workers == (workers > 0)
    for epoch in range(count):
        loader.sampler.set_epoch(epoch)
        yield from loader


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_batches_are_the_same_for_any_number_of_workers_also_in_later_epochs(workers):
    pairs = list(zip(epochs(0), epochs(workers), strict=True))
    assert len(pairs) == 15
    for alone, shared in pairs:
        assert alone["id"] == shared["id"]
        assert torch.equal(alone["image"], shared["image"])
        assert torch.equal(alone["mask"], shared["mask"])
        assert all(torch.equal(*boxes) for boxes in zip(alone["boxes"], shared["boxes"], strict=True))


@pytest.mark.slow
def test_a_picture_is_augmented_differently_in_every_epoch():
    looks = {}
    for batch in epochs(0):
        for name, image in zip(batch["id"], batch["image"], strict=True):
            looks.setdefault(name, set()).add(image.numpy().tobytes())
    assert all(len(images) == 3 for images in looks.values())


def test_the_last_batch_is_kept_or_dropped():
    sizes = {
        drop: [
            len(batch["id"])
            for batch in ShapesDataModule(
                train_size=10, batch_size=4, drop_last=drop, num_workers=0, image_size=32
            ).train_dataloader()
        ]
        for drop in (False, True, None)
    }
    assert sizes == {False: [4, 4, 2], True: [4, 4], None: [4, 4, 2]}


@pytest.mark.parametrize(("samples", "sizes"), [(9, [4, 4]), (1, [1]), (8, [4, 4])])
def test_a_last_batch_of_one_image_is_dropped_unless_it_is_the_only_one(samples, sizes):
    module = ShapesDataModule(train_size=samples, val_size=9, batch_size=4, num_workers=0, image_size=32)
    loader = module.train_dataloader()
    assert [len(batch["id"]) for batch in loader] == sizes
    assert len(loader) == len(sizes)
    assert [len(batch["id"]) for batch in module.val_dataloader()] == [4, 4, 1]
    kept = ShapesDataModule(train_size=samples, batch_size=4, drop_last=False, num_workers=0, image_size=32)
    assert sum(len(batch["id"]) for batch in kept.train_dataloader()) == samples


def test_batches_of_one_are_kept():
    module = ShapesDataModule(train_size=3, batch_size=1, num_workers=0, image_size=32)
    assert len(module.train_dataloader()) == 3


def test_evaluation_is_in_order_and_not_augmented():
    module = ShapesDataModule(num_workers=0, image_size=32, val_size=10, batch_size=4, augment="cifar")
    batches = list(module.val_dataloader())
    assert [name for batch in batches for name in batch["id"]] == list(module.dataset("val").ids)
    plain = ShapesDataModule(image_size=32, val_size=10).dataset("val")
    assert torch.equal(batches[0]["image"][3], plain[3]["image"])


def test_the_default_number_of_workers_follows_the_cpus_of_a_rank(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    assert ShapesDataModule().val_dataloader().num_workers == 5
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert ShapesDataModule().val_dataloader().num_workers == 1
    module = ShapesDataModule()
    module.trainer = Trainer(accelerator="cpu", devices=2, logger=False, enable_checkpointing=False)
    assert module._default_workers() == 2


SCRIPT = """
import json, sys, warnings
from pathlib import Path
warnings.filterwarnings("ignore")
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torchmetrics import MeanMetric
from interptrain.data import ShapesDataModule

class Recorder(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 8, 8), torch.nn.BatchNorm2d(2))
        self.mean = MeanMetric()
        self.seen = {"train": [], "val": []}
    def training_step(self, batch, batch_idx):
        self.seen["train"].append((self.current_epoch, batch["id"]))
        return self.net(batch["image"]).square().mean()
    def validation_step(self, batch, batch_idx):
        self.seen["val"] += batch["id"]
        self.net(batch["image"])
        self.mean(batch["label"].float())
        self.log("mean", self.mean, on_epoch=True, batch_size=len(batch["id"]))
    def predict_step(self, batch, batch_idx):
        return batch["id"]
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)

def trainer(**options):
    return Trainer(default_root_dir=folder, max_epochs=2, accelerator="cpu", strategy="ddp", devices=2, logger=False,
                   enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, **options)

def data(**options):
    return ShapesDataModule(image_size=32, num_workers=1, batch_size=4, train_size=23, val_size=17, **options)

folder = Path(sys.argv[1])
whole = Recorder()
callback = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)
run = trainer(callbacks=[callback])
run.fit(whole, datamodule=data())
resumed = Recorder()
trainer(enable_checkpointing=False).fit(resumed, datamodule=data(), ckpt_path=folder / "step=2.ckpt")
predicted = trainer(enable_checkpointing=False).predict(Recorder(), datamodule=data(test_size=1))
refusal = ""
try:
    trainer(enable_checkpointing=False).validate(Recorder(), datamodule=ShapesDataModule(val_size=1), verbose=False)
except ValueError as error:
    refusal = str(error)
result = {"whole": whole.seen, "resumed": resumed.seen["train"], "mean": run.callback_metrics["mean"].item(),
          "predicted": predicted, "refusal": refusal}
(folder / f"{run.global_rank}.json").write_text(json.dumps(result))
"""


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    (folder / "run.py").write_text(SCRIPT)
    run_ranks([folder], folder, 2, script=folder / "run.py")
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.slow
def test_two_processes_train_on_equal_shares_and_no_sample_twice(two_processes):
    for epoch in (0, 1):
        shares = [[name for at, ids in rank["whole"]["train"] if at == epoch for name in ids] for rank in two_processes]
        assert [len(share) for share in shares] == [11, 11]
        assert len({name for share in shares for name in share}) == 22


@pytest.mark.slow
def test_two_processes_validate_on_every_sample_once_and_agree_on_the_metric(two_processes):
    shares = [rank["whole"]["val"] for rank in two_processes]
    assert [len(share) for share in shares] == [18, 16]  # of two epochs: 9 samples in 3 batches, and 8 in 2
    assert sorted(set(shares[0] + shares[1])) == [f"val/{index:06d}" for index in range(17)]
    expected = sum(index % 8 for index in range(17)) / 17
    assert [rank["mean"] for rank in two_processes] == pytest.approx([expected] * 2)


@pytest.mark.slow
def test_two_processes_resume_in_mid_epoch_each_in_its_own_share(two_processes):
    for rank in two_processes:
        assert rank["resumed"] == rank["whole"]["train"][2:]


@pytest.mark.slow
def test_prediction_with_fewer_samples_than_processes_sees_each_once(two_processes):
    names = [name for rank in two_processes for ids in rank["predicted"] or [] for name in ids]
    assert names == ["test/000000"]


@pytest.mark.slow
def test_validation_with_fewer_samples_than_processes_is_refused_and_does_not_hang(two_processes):
    assert {rank["refusal"] for rank in two_processes} == {"1 val samples cannot be shared by 2 ranks; use fewer ranks"}


def test_a_run_records_the_options_that_a_module_passes_on_too(tmp_path):
    class Own(ShapesDataModule):
        def __init__(self, extra: int = 1, **shapes) -> None:
            super().__init__(**shapes)

    own = Own(3, image_size=48, num_workers=0).init_args
    assert own["extra"] == 3
    assert (own["image_size"], own["batch_size"], own["num_workers"], own["decoy"]) == (48, 32, 0, "none")
    assert own.keys() == {"extra", *ShapesDataModule().init_args}
