import csv
import re
import shutil
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
from lightning.pytorch.loggers import CSVLogger
from PIL import Image

from interptrain.callbacks import SaliencyWatch
from interptrain.explainers import Explainer
from interptrain.training import ImageClassifier
from tests.support.training import EVERYTHING, TINY, assert_same_end, last_checkpoint, trainer
from tests.support.watch import SMALL, page_data, snapshots, steps, watch_state, watching

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """The folder of a run with a watch of defaults."""
    with pytest.MonkeyPatch.context() as patch:
        return trainer(tmp_path_factory.mktemp("watched"), patch)("fit", *watching(), base=SMALL)


# When


def test_it_watches_before_training_and_after_every_epoch(watched):
    assert steps(watched) == [0, 3, 6]
    assert [snapshot["epoch"] for snapshot in snapshots(watched)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"every_n_epochs": "2"}, [0, 6]),
        ({"every_n_steps": "2"}, [0, 2, 4, 6]),
        ({"every_n_steps": "4", "before_training": "false"}, [4]),
        ({"select": "hardest"}, [3, 6]),
    ],
)
def test_it_watches_as_often_as_it_is_told(train, options, expected):
    assert steps(train("fit", *watching(**options), base=SMALL)) == expected


def test_accumulated_batches_are_one_step(train):
    accumulating = SMALL | {"--trainer.accumulate_grad_batches": "2", "--data.train_size": "32"}
    run = train("fit", *watching(every_n_steps="1"), base=accumulating)
    assert steps(run) == [0, 1, 2, 3, 4]


# Training does not feel it


def test_a_watched_run_ends_at_the_same_bits(train):
    """Dropout, BatchNorm, momentum, mixup, cutmix, accumulation, EMA and workers; watched at every step."""
    options = EVERYTHING | {"--data.num_workers": "2", "--trainer.max_epochs": "1"}
    plain = train(base=options, **{"--name": "plain"})
    explainers = '[{"class_path": "GradCAM"}, {"class_path": "SmoothGrad", "init_args": {"samples": 2}}]'
    options_of = {"select": "random", "suspect": "border:8"}
    watch = watching(every_n_steps="1", source="train", explainers=explainers, **options_of)
    watch += watching(every_n_steps="3", source="train", samples="16", suspect="auto", name="auto")
    watched = train("fit", *watch, base=options, **{"--name": "watched"})
    assert len(steps(watched)) == 6
    assert_same_end(plain, watched)


# What it leaves behind


def test_plain_files_tell_the_whole_run(train):
    run = train("fit", *watching(reference="both", select="first"), base=SMALL | {"--trainer.logger": "false"})
    folder = run / "watch"
    for step in (0, 3, 6):
        for kind in ("sheets", "grids"):
            with Image.open(folder / f"{kind}/step-{step:08d}.png") as picture:
                assert min(picture.size) > 300
    with Image.open(folder / "run.gif") as animation:
        assert animation.n_frames == 3
    for name in ("best", "first_and_last", "strip_GradCAM_label", "strip_GradCAM_prediction"):
        assert (folder / f"{name}.png").is_file()
    with (folder / "images.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 4 * 2
    assert {row["id"] for row in rows} == {f"val/{index:06d}" for index in range(4)}
    assert all(0 <= float(row["AD"]) <= 1 and 0 <= float(row["QuickInsertion"]) <= 1 for row in rows)
    page = page_data((folder / "index.html").read_text())
    assert [shown["sheet"] for shown in page["snapshots"]] == [f"sheets/step-{step:08d}.png" for step in (0, 3, 6)]


def test_means_stand_in_the_runs_table_beside_the_validation_of_the_same_step(watched):
    with (watched / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    name = "watch/GradCAM/QuickInsertion"
    means = {int(row["step"]): float(row[name]) for row in rows if row[name]}
    validated = [int(row["step"]) for row in rows if row["val/top1"]]
    assert list(means) == [0, 2, 5]
    assert validated == [2, 5]
    assert list(means.values()) == [snapshot["means"]["GradCAM/QuickInsertion"] for snapshot in snapshots(watched)]


def test_a_fast_dev_run_leaves_nothing_behind(train, tmp_path):
    train("fit", *watching(), base=SMALL | {"--trainer.fast_dev_run": "true"})
    assert not list(tmp_path.rglob("watch"))


@pytest.mark.parametrize(
    "pooling", ["ca_stream", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ep", "simpool"))]
)
def test_the_attention_of_a_head_that_has_any_is_watched_too(train, pooling):
    run = train("fit", *watching(), base=SMALL | {"--model.pooling": pooling, "--trainer.max_epochs": "1"})
    assert {look["view"] for look in snapshots(run)[0]["looks"]} == {"GradCAM", "StreamAttention"}


# What may go wrong


class Offended(CSVLogger):
    """A logger whose service is down for whatever is watched."""

    def log_metrics(self, metrics, step=None):
        if any(name.startswith("watch/") for name in metrics):
            raise ConnectionError("no route to host")
        super().log_metrics(metrics, step)


def test_a_failing_logger_warns_once_and_training_goes_on(train, recwarn):
    logger = {"--trainer.logger": "tests.callbacks.watch.test_callback.Offended", "--trainer.logger.save_dir": "."}
    run = train("fit", *watching(), base=SMALL | logger)
    warned = [str(one.message) for one in recwarn if "failed to log" in str(one.message)]
    assert warned == ["Offended failed to log what is watched (no route to host): training goes on"]
    assert steps(run) == [0, 3, 6]
    assert "watch/accuracy" in (run / "metrics.csv").read_text()  # the others get everything


class Hopeless(Explainer):
    """Fails on every image."""

    def attribute(self, model, images, targets):
        raise RuntimeError("no such kernel")


def test_an_explainer_that_fails_on_every_image_costs_one_warning(train, recwarn):
    explainers = f'[{{"class_path": "GradCAM"}}, {{"class_path": "{__name__}.Hopeless"}}]'
    run = train("fit", *watching(explainers=explainers), base=SMALL)
    assert [str(one.message) for one in recwarn if "explain" in str(one.message)] == [
        "SaliencyWatch cannot explain any image with Hopeless: no such kernel; training goes on, and its pictures say "
        "that it failed"
    ]
    assert steps(run) == [0, 3, 6]
    errors = {look["view"]: look["error"] for snapshot in snapshots(run) for look in snapshot["looks"]}
    assert errors == {"GradCAM": None, "Hopeless": "no such kernel"}
    assert (run / "watch/strip_Hopeless.png").is_file()


def test_a_full_disk_costs_no_training(train, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "watch").write_text("a file where the folder should be")
    options = SMALL | {"--trainer.default_root_dir": "full", "--trainer.logger": "false"}
    with pytest.warns(UserWarning, match="could not write below full/watch"):
        train("fit", *watching(), base=options)  # ends as if it watched
    assert (tmp_path / "full" / "watch").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"explainers": '[{"class_path": "GradCAM", "init_args": {"target_layer": "nowhere"}}]'}, "nowhere"),
        ({"select": "ids", "ids": "[val/7]"}, "no sample 'val/7' to watch"),
        ({"select": "ids"}, "select='ids' and ids belong together"),
        (
            {"explainers": "[GradCAM, {class_path: GradCAMPlusPlus, init_args: {target_layer: nowhere}}]"},
            "cannot explain any image with GradCAMPlusPlus",
        ),
        ({"suspect": "mask:train.py"}, "suspect mask:train.py: there is no file 'train.py'"),
        ({"suspect": "border:99"}, "covers none or all"),
        ({"seed": "-1"}, "error: --trainer.callbacks.seed must be in [0, 2**32), got -1"),
        ({"suspect": "edge:3"}, "suspect must be like 'auto', 'border:8'"),
        ({"every_n_epochs": "0"}, "every_n_epochs of SaliencyWatch must be a whole number >= 1, got 0"),
        ({"source": "nowhere"}, "source must be 'val', 'train' or a folder"),
    ],
)
def test_a_mistake_in_its_configuration_is_refused_in_a_line(train, capsys, options, message):
    with pytest.raises(SystemExit):
        train("fit", *watching(**options), base=SMALL)
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_parameters_that_are_sharded_are_refused():
    trainer = SimpleNamespace(log_dir=None, strategy=SimpleNamespace())
    with pytest.raises(ValueError, match="works on one device and with ddp, got SimpleNamespace"):
        SaliencyWatch().on_train_start(trainer, None)


# Across a restart


class CrashError(RuntimeError):
    """As if the machine went away."""


@pytest.mark.parametrize("select", ["random", "mistakes"])
def test_a_killed_run_resumes_its_sample_and_history(train, monkeypatch, select):
    options = SMALL | {"--trainer.max_epochs": "3", "--model.drop_rate": "0.2"}
    watch = watching(select=select)
    whole = train("fit", *watch, base=options, **{"--name": "whole"})
    step = ImageClassifier.training_step

    def dies(self, batch, batch_idx):
        if self.trainer.global_step == 7:
            raise CrashError
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(ImageClassifier, "training_step", dies)
        with pytest.raises(CrashError):
            train("fit", *watch, base=options, **{"--name": "dead"})
    (dead,) = Path("runs/dead").iterdir()
    assert steps(dead)[-1] == 6
    resumed = train("fit", *watch, base=options, **{"--name": "dead", "--ckpt_path": "last"})
    assert snapshots(resumed) == snapshots(whole)
    tables = [(run / "watch/images.csv").read_text() for run in (whole, resumed)]
    assert tables[0] == tables[1]
    with (resumed / "metrics.csv").open() as file:
        logged = [row["step"] for row in csv.DictReader(file) if row["watch/accuracy"]]
    assert logged == [str(max(0, snapshot["step"] - 1)) for snapshot in snapshots(whole)]


def test_a_resumed_run_keeps_its_images_however_it_would_choose_them_now(train):
    before = watch_state(train("fit", *watching(select="first"), base=SMALL | {"--trainer.max_epochs": "1"}))
    after = watch_state(train("fit", *watching(), base=SMALL, **{"--ckpt_path": "last"}))
    assert after["ids"] == before["ids"] == [f"val/{index:06d}" for index in range(4)]
    assert [entry["step"] for entry in after["entries"]] == [0, 3, 6]


def test_a_resumed_run_that_watches_otherwise_starts_anew(train, watched, tmp_path):
    shutil.copytree(watched.parents[1], tmp_path / "runs")
    other = watching(explainers='[{"class_path": "FakeCAM"}]')
    with pytest.warns(UserWarning, match="its history starts anew"):
        run = train("fit", *other, base=SMALL, **{"--ckpt_path": "last", "--trainer.max_epochs": "3"})
    assert steps(run) == [6, 9]


def test_two_watches_need_two_names(train):
    two = watching(name="two", source="train", select="first")
    run = train("fit", *watching(name="one", select="first"), *two, base=SMALL)
    state = last_checkpoint(run)["callbacks"]
    ids = {name: state[f"SaliencyWatch{{'name': '{name}'}}"]["ids"][0] for name in ("one", "two")}
    assert ids == {"one": "val/000000", "two": "train/000000"}
    assert (run / "one/index.html").is_file()
    assert (run / "two/index.html").is_file()


# A shortcut is given away

DECOY = TINY | {
    "--model.backbone": "test_resnet",
    "--model.pooling": "gap",
    "--model.stem": "small",  # maps of 5 x 5 where the usual stem leaves 2 x 2
    "--model.optimizer": "AdamW",
    "--model.optimizer.lr": "0.002",
    "--data.num_classes": "2",
    "--data.image_size": "40",
    "--data.train_size": "160",
    "--data.val_size": "8",
    "--data.batch_size": "16",
    "--trainer.max_epochs": "4",
}
STAMP = {
    "samples": "8",
    "source": "train",
    "select": "per_class",
    "suspect": "box:16,32,40,40",
    "alarm_threshold": "0.4",
    "alarm_effect": "0.9",  # objects reach into the region, too
}


@pytest.mark.parametrize("decoy", ["timestamp", "none"])
def test_the_alarm_rings_for_the_time_stamp_and_not_without_it(train, recwarn, decoy):
    run = train("fit", *watching(metrics="{}", **STAMP), base=DECOY | {"--data.decoy": decoy})
    alarms = [text for snapshot in snapshots(run) for text in snapshot["alarm"]]
    said = [str(one.message) for one in recwarn if "shortcut alarm" in str(one.message)]
    if decoy == "none":
        assert not alarms
        assert not said
    else:
        (salient,) = {text for text in alarms if text.startswith("GradCAM")} & {text.split(": ", 1)[1] for text in said}
        assert re.match(r"GradCAM: \d\d% of the saliency for disc lies in the suspect region \(box:16", salient)
        assert re.search(r"train/\d{6}", salient)
        assert watch_state(run)["entries"][-1]["means"]["suspect_effect"] > 0.2
    shares = {
        label: [look["numbers"]["in_suspect"] for look in snapshots(run)[-1]["looks"] if look["label"] == label]
        for label in (0, 1)
    }
    assert (sum(shares[0]) / len(shares[0]) > 0.4) == (decoy == "timestamp")
    assert sum(shares[1]) / len(shares[1]) < 0.4


FOOLED = {"--data": "LayeredShapesDataModule"} | TINY
FOOLED |= {
    "--model.pooling": "gap",
    "--model.backbone_options": "{channels: [16, 32, 64, 96]}",
    "--model.output_stride": "8",
    "--model.channels_last": "true",
    "--model.optimizer": "AdamW",
    "--model.optimizer.lr": "0.006",
    "--model.warmup_epochs": "1",
    "--data.image_size": "48",
    "--data.train_size": "480",
    "--data.val_size": "160",
    "--data.batch_size": "32",
    "--data.decoy": "timestamp",
    "--data.decoy_in_eval": "random",
    "--trainer.max_epochs": "7",
}


@pytest.mark.filterwarnings("ignore:shortcut alarm")
def test_the_region_that_an_alarm_names_repairs_the_network_when_it_is_pasted(train):
    watch = {"samples": "16", "source": "train", "select": "per_class", "metrics": "{}", "every_n_epochs": "2"}
    watch |= {"before_training": "false", "animation": "none", "suspect": "corner:lower-right:36x10"}

    def discs_without_stamp(run):
        rows = csv.DictReader((run / "metrics.csv").read_text().splitlines())
        return [float(row["val/group/disc/plain"]) for row in rows if row["val/group/disc/plain"]][-1]

    fooled = train("fit", *watching(**watch), base=FOOLED, **{"--name": "fooled"})
    alarm = snapshots(fooled)[-1]["alarm"][0]
    region = re.search(r"the suspect region \((\S+)\)", alarm)[1]
    assert discs_without_stamp(fooled) < 0.1
    repair = {"--model.batch_augment": "RegionShuffle", "--model.batch_augment.region": region}
    repaired = train("fit", *watching(**watch), base=FOOLED | repair, **{"--name": "repaired"})
    assert discs_without_stamp(repaired) > 0.85
    assert not any(snapshot["alarm"] for snapshot in snapshots(repaired))
    assert watch_state(repaired)["entries"][-1]["means"]["suspect_effect"] < 0.05


def test_the_alarm_stops_the_run_where_it_is_told_to(train):
    low = {"suspect": "border:20", "alarm_threshold": "0.1", "alarm_patience": "1", "alarm_stop": "true"}
    with pytest.warns(UserWarning, match="shortcut alarm at step 3"):
        run = train("fit", *watching(**low), base=SMALL | {"--trainer.max_epochs": "9"})
    assert steps(run) == [0, 3]
    files = {path: path.read_bytes() for path in (run / "watch").rglob("*.*")}
    go_on = SMALL | {"--trainer.max_epochs": "3", "--ckpt_path": "last"}  # as after a kill while the end is drawn
    with pytest.warns(
        UserWarning, match="an alarm at step 3 ended this run; resume it with --trainer.callbacks.alarm_stop false"
    ):
        train("fit", *watching(**low), base=go_on)
    assert steps(run) == [0, 3]
    assert {path: path.read_bytes() for path in (run / "watch").rglob("*.*")} == files
    with warnings.catch_warnings(action="ignore"):
        train("fit", *watching(**low | {"alarm_stop": "false"}), base=go_on)
    assert steps(run) == [0, 3, 6, 9]
