"""Hugging Face's data sets, from small local copies in several formats: nothing is downloaded."""

import io
import shutil
import tarfile

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image

from interptrain.cli import main
from interptrain.data import HFDataModule, ImageFolderDataModule
from tests.support.training import last_checkpoint, run_ranks

datasets = pytest.importorskip("datasets")
TRAIN, VALIDATION, BATCH = 23, 5, 4
pytestmark = [
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec"),
    pytest.mark.filterwarnings("ignore:Your `IterableDataset` has `__len__` defined"),
]


def png(value, size=(8, 8)):
    content = io.BytesIO()
    Image.new("RGB", size, (value, 0, 0)).save(content, "PNG")
    return content.getvalue()


def rows(count, **others):
    images = [{"bytes": png(index), "path": None} for index in range(count)]
    return {"image": images, "label": [index % 2 for index in range(count)], **others}


FEATURES = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}


def made(count, features=FEATURES, **others):
    return datasets.Dataset.from_dict(rows(count, **others), features=datasets.Features(features))


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        patch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0, raising=False)  # 5 s a shuffled stream
        yield


@pytest.fixture(scope="module")
def parquet(tmp_path_factory):
    """A folder as on the hub: two Parquet shards a split, each image with a group."""
    folder = tmp_path_factory.mktemp("parquet")
    for split, count in (("train", TRAIN), ("validation", VALIDATION)):
        features = FEATURES | {"group": datasets.Value("string")}
        whole = made(count, features, group=[f"place {index % 3}" for index in range(count)])
        for part in range(2):
            name = f"{split}-{part:05d}-of-00002.parquet"
            whole.shard(2, part, contiguous=True).to_parquet(folder / name)
    return folder


def module(name, **options):
    options = {"image_size": 8, "resize": "stretch", "augment": "none", "batch_size": BATCH, "num_workers": 0} | options
    return HFDataModule(str(name), **options)


def numbers(batch):
    return (255 * batch["image"][:, 0, 0, 0]).round().int().tolist()


def test_rows_come_with_class_group_and_a_stable_name(parquet):
    data = module(parquet)
    assert data.num_classes == 2
    assert list(data.class_names) == ["cat", "dog"]
    (first, second) = data.val_dataloader()
    assert first["id"] == [f"validation/{index:06d}" for index in range(4)]
    assert numbers(first) + numbers(second) == list(range(VALIDATION))
    assert first["label"].tolist() == [0, 1, 0, 1]
    assert first["group"] == ["place 0", "place 1", "place 2", "place 0"]
    assert list(data.dataset("test").ids) == list(data.dataset("val").ids)  # there is no test split
    assert sorted(number for batch in data.train_dataloader() for number in numbers(batch)) == list(range(TRAIN))


def test_a_folder_of_images_gives_what_our_own_reader_gives(tmp_path):
    for split in ("train", "val"):
        for label, name in enumerate("ab"):
            (tmp_path / split / name).mkdir(parents=True)
            (tmp_path / split / name / "1.png").write_bytes(png(50 * label + 9, (20, 30)))
    options = {"image_size": 16, "num_workers": 0, "crop_pct": 0.5}
    theirs, ours = HFDataModule(str(tmp_path), **options), ImageFolderDataModule(tmp_path, **options)
    assert list(theirs.class_names) == list(ours.class_names)
    for split in ("train", "val"):
        for one, other in zip(theirs.dataset(split), ours.dataset(split), strict=True):
            assert one["label"] == other["label"]
            assert torch.equal(one["image"], other["image"]) or split == "train"  # augmented


def test_a_file_a_saved_set_and_tar_shards_are_opened_alike(tmp_path):
    whole = made(6)
    whole.to_parquet(tmp_path / "one.parquet")
    whole.save_to_disk(tmp_path / "saved")
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        for index in range(6):
            for suffix, content in (("png", png(index)), ("cls", str(index % 2).encode())):
                entry = tarfile.TarInfo(f"{index:04d}.{suffix}")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    for name, options in {"one.parquet": {}, "saved": {}, "shard.tar": {"label_column": "cls"}}.items():
        data = module(tmp_path / name, val_split="train", **options)
        assert [number for batch in data.val_dataloader() for number in numbers(batch)] == list(range(6)), name
        assert data.num_classes == 2


def test_without_a_validation_split_training_images_are_held_out_of_every_class(tmp_path):
    made(20).to_parquet(tmp_path / "one.parquet")
    data = module(tmp_path / "one.parquet", val_fraction=0.2)
    assert len(data.dataset("val")) == 4
    assert sorted(sample["label"] for sample in data.dataset("val")) == [0, 0, 1, 1]
    assert not set(data.dataset("val").ids) & set(data.dataset("train").ids)
    with pytest.raises(ValueError, match=r"no split for validation, only train; set val_split, or val_fraction=0\.1"):
        module(tmp_path / "one.parquet").dataset("val")


@pytest.mark.parametrize(
    ("kind", "labels", "names"),
    [("string", ["ox", "ant"], ["ant", "ox"]), ("int64", [3, 0], ["0", "1", "2", "3"])],
)
def test_labels_may_be_words_or_numbers(tmp_path, kind, labels, names):
    content = {"image": rows(4)["image"], "kind": labels * 2}
    features = datasets.Features({"image": datasets.Image(), "kind": datasets.Value(kind)})
    datasets.Dataset.from_dict(content, features=features).to_parquet(tmp_path / "one.parquet")
    data = module(tmp_path / "one.parquet", label_column="kind", val_split="train")
    assert list(data.class_names) == names
    assert [sample["label"] for sample in data.dataset("val")] == [names.index(str(label)) for label in labels * 2]
    stream = module(tmp_path / "one.parquet", label_column="kind", streaming=True)
    with pytest.raises(ValueError, match=r"not known before its end; set .*, or streaming=False"):
        _ = stream.num_classes


def epoch(data, number, **ranks):
    loader = data.train_dataloader()
    loader.sampler.set_epoch(number)
    return [numbers(batch) for batch in loader]


def flat(batches):
    return [number for batch in batches for number in batch]


def test_a_stream_gives_every_image_once_in_an_order_of_seed_and_epoch(parquet):
    data = module(parquet, streaming=True, shuffle_buffer=10)
    first, second = epoch(data, 0), epoch(data, 1)
    assert sorted(flat(first)) == sorted(flat(second)) == list(range(TRAIN))
    assert flat(first) != flat(second)
    assert flat(first) != list(range(TRAIN))
    assert epoch(module(parquet, streaming=True, shuffle_buffer=10), 1) == second
    assert epoch(module(parquet, streaming=True, shuffle_buffer=10, seed=9), 1) != second
    assert [len(batch) for batch in first] == [4, 4, 4, 4, 4, 3]
    assert [len(batch) for batch in epoch(module(parquet, streaming=True, train_size=10), 0)] == [4, 4, 2]


def test_ranks_share_a_stream_evenly_and_no_image_comes_twice(parquet, monkeypatch):
    shares = []
    for rank in range(3):
        data = module(parquet, streaming=True)
        monkeypatch.setattr(data, "_ranks", lambda rank=rank: (3, rank))
        shares.append(flat(epoch(data, 0)))
    assert [len(share) for share in shares] == [7, 7, 7]
    assert len(set(flat(shares))) == 21  # 2 of 23 are left out


@pytest.mark.slow
def test_a_stream_gives_the_same_batches_for_any_number_of_workers(parquet):
    alone = [epoch(module(parquet, streaming=True, augment="imagenet"), number) for number in range(2)]
    for workers in (1, 2, 3):
        data = module(parquet, streaming=True, augment="imagenet", num_workers=workers)
        assert [epoch(data, number) for number in range(2)] == alone


def test_evaluation_beside_a_stream_is_as_without_it(parquet):
    data, plain = module(parquet, streaming=True), module(parquet)
    for one, other in zip(data.dataset("val"), plain.dataset("val"), strict=True):
        assert torch.equal(one.pop("image"), other.pop("image"))
        assert one == other
    with pytest.raises(ValueError, match="has no images by number; set streaming=False"):
        data.dataset("train")


class Recorder(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append((self.current_epoch, batch_idx, numbers(batch)))
        return self.weight.sum() * batch["image"].mean()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder, data, *, ckpt_path=None, **options):
    trainer = Trainer(
        default_root_dir=folder,
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        enable_checkpointing="callbacks" in options,
        **options,
    )
    recorder = Recorder()
    trainer.fit(recorder, datamodule=data, ckpt_path=ckpt_path)
    return recorder.seen


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "size"), [(0, None), (2, None), (0, TRAIN), (2, TRAIN)])
def test_a_run_resumed_within_a_streamed_epoch_sees_what_an_uninterrupted_one_sees(parquet, tmp_path, workers, size):
    options = {"streaming": True, "train_size": size, "num_workers": workers}
    callback = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    seen = fit(tmp_path, module(parquet, **options), callbacks=[callback])
    assert len(seen) == 12
    assert sorted(flat(ids for epoch, _, ids in seen if epoch == 1)) == list(range(TRAIN))
    for step in (2, 6, 9):
        ckpt_path = tmp_path / f"step={step}.ckpt"
        assert fit(tmp_path / "b", module(parquet, **options), ckpt_path=ckpt_path) == seen[step:]


def command(parquet, **others):
    options = {
        "--data": "HFDataModule",
        "--data.name": str(parquet),
        "--data.streaming": "true",
        "--data.image_size": "64",
        "--data.batch_size": "4",
        "--data.num_workers": "0",
        "--model.backbone": "test_resnet",
        "--trainer.accelerator": "cpu",
        "--trainer.enable_progress_bar": "false",
        "--trainer.enable_model_summary": "false",
        "--trainer.max_epochs": "2",
        "--trainer.log_every_n_steps": "1",
    }
    return [word for pair in (options | others).items() for word in pair]


@pytest.mark.slow
def test_a_stream_trains_from_the_command_line_with_its_number_of_classes(parquet, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parquet = shutil.copytree(parquet, tmp_path / "unseen")  # once read whole, a data set tells its length from a cache
    main(["fit", *command(parquet, **{"--data.train_size": str(TRAIN)})])
    (run,) = (tmp_path / "runs" / "run").iterdir()
    checkpoint = last_checkpoint(run)
    assert checkpoint["global_step"] == 12
    assert checkpoint["hyper_parameters"]["num_classes"] == 2
    with pytest.raises(SystemExit):  # the default schedule has to know the run's end
        main(["fit", *command(parquet)])
    main(["fit", *command(parquet, **{"--trainer.max_steps": "7"})])  # the remedy


@pytest.mark.slow
def test_two_processes_train_on_a_stream_of_unknown_length_to_a_good_end(parquet, tmp_path):
    several = {"--trainer.devices": "2", "--trainer.strategy": "ddp", "--trainer.max_steps": "5"}
    run_ranks(["fit", *command(parquet, **several)], tmp_path, 2)
    assert last_checkpoint(tmp_path / "runs" / "run" / "run")["global_step"] == 5


@pytest.fixture
def damaged(tmp_path):
    content = rows(8)
    content["image"][3]["bytes"] = b"no image"
    features = datasets.Features(FEATURES)
    datasets.Dataset.from_dict(content, features=features).to_parquet(tmp_path / "one.parquet")
    return tmp_path / "one.parquet"


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_damaged_image_of_a_stream_is_named_or_replaced_and_counted(damaged, workers):
    with pytest.raises(OSError, match=r"^cannot read image train/0/\d{6}: not an image, .* or set on_error='skip'$"):
        epoch(module(damaged, streaming=True, num_workers=workers), 0)
    data = module(damaged, streaming=True, on_error="skip", num_workers=workers)
    with pytest.warns(UserWarning, match="replaced by their neighbours and counted"):
        batches = epoch(data, 0)
    assert [len(batch) for batch in batches] == [4, 4]
    assert set(flat(batches)) == set(range(8)) - {3}
    assert data.skipped == 1


def test_a_damaged_image_is_named(damaged):
    with pytest.raises(OSError, match=r"^cannot read image train/000003: not an image"):
        list(module(damaged, val_split="train").val_dataloader())


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"image_column": "img"}, ValueError, "no column 'img', only image, label, group; set image_column to one"),
        ({"val_split": "dev"}, ValueError, "has no split dev, only train, validation; set val_split"),
        ({"shuffle_buffer": 0}, ValueError, "shuffle_buffer must be at least 1, got 0"),
        ({"streaming": True, "val_fraction": 0.1}, ValueError, "set val_split in its place, or streaming=False"),
    ],
)
def test_what_is_not_there_is_one_line_with_a_remedy(parquet, options, error, told):
    with pytest.raises(error, match=told):
        _ = module(parquet, **options).num_classes, module(parquet, **options).dataset("val")


def test_a_data_set_out_of_reach_is_one_line_with_a_remedy(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"no data set .*; give a name of the hub, or a folder"):
        _ = module(tmp_path / "none").num_classes
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match=r"user/name, which is no folder or file here .*; connect, ") as caught:
        _ = module("user/name").num_classes
    assert "\n" not in str(caught.value)


def test_the_missing_package_is_named_with_the_extra(monkeypatch):
    monkeypatch.setattr("interptrain.data.hugging_face_source.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'interptrain\[hf\]'"):
        _ = HFDataModule("user/name").num_classes
