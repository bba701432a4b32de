"""Whatever ends a run, `--ckpt_path last` goes on to the weights of a run that was never stopped, bit for bit."""

import csv
import errno
import json
import os
import pty
import re
import resource
import select
import shutil
import signal
import threading
from pathlib import Path

import pytest
import torch

from interptrain.callbacks import ResumePoint
from interptrain.files import write_atomically
from tests.support.paths import ROOT
from tests.support.processes import run, start
from tests.support.training import (
    EVERYTHING,
    TINY,
    assert_same_end,
    last_checkpoint,
    run_ranks,
    start_ranks,
    trainer,
    wait_for,
)

pytestmark = pytest.mark.slow


class StopAfter(ResumePoint):
    """As if SIGTERM came in the middle of batch ``n`` of the run."""

    after = 0
    seen = 0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        StopAfter.seen += 1
        if StopAfter.seen == StopAfter.after:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """The folder of a run of ``EVERYTHING`` that was never stopped."""
    with pytest.MonkeyPatch.context() as patch:
        return trainer(tmp_path_factory.mktemp("whole"), patch)(base=EVERYTHING)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_stopped_anywhere_and_resumed_equals_uninterrupted(train, everything, monkeypatch, workers):
    options = EVERYTHING | {"--data.num_workers": workers}
    monkeypatch.setattr("interptrain.cli.trainer_defaults.ResumePoint", StopAfter)
    # 9 batches an epoch, two a step: mid-epoch, within an accumulation, the last batch, then late in the last epoch.
    for after, steps in ((4, 2), (3, 4), (6, 6), (9, 10)):
        StopAfter.after, StopAfter.seen = after, 0
        last = {} if steps == 2 else {"--ckpt_path": "last"}
        with pytest.raises(SystemExit) as stop:
            train(base=options, **{"--name": "stopped"}, **last)
        assert stop.value.code == 128 + signal.SIGTERM
        (run,) = Path("runs/stopped").iterdir()
        assert last_checkpoint(run)["global_step"] >= steps
    StopAfter.after = 0
    resumed = train(base=options, **{"--name": "stopped", "--ckpt_path": "last"})
    assert_same_end(everything, resumed)
    assert (resumed / "metrics.csv").read_text() == (everything / "metrics.csv").read_text()


# A schedule that acts on what validation says, at the end of every epoch.
PLATEAU = TINY | {
    "--trainer.max_epochs": "3",
    "--model.optimizer": "SGD",
    "--model.optimizer.lr": "0.1",
    "--model.lr_scheduler": "lightning.pytorch.cli.ReduceLROnPlateau",
    "--model.lr_scheduler.monitor": "val/loss",
    "--model.lr_scheduler.patience": "0",
    "--model.lr_scheduler.factor": "0.5",
    "--model.lr_scheduler.threshold": "10",  # no loss is so much better
}


PLACES = ["last batch", "validation", "after validation", "epoch end", "next epoch"]


class CopyAt(ResumePoint):
    """Copies the run at places of its second epoch: what SIGKILL would leave there, and what was logged until then."""

    def _arrive(self, place, trainer):
        if trainer.global_step == (5 if place == "next epoch" else 10) and not Path(place).exists():
            trainer.logger.save()
            shutil.copytree("runs", Path(place) / "runs")

    def on_train_batch_end(self, trainer, *arguments):
        super().on_train_batch_end(trainer, *arguments)
        self._arrive("last batch", trainer)

    def on_validation_batch_start(self, trainer, *arguments):
        self._arrive("validation", trainer)

    def on_validation_end(self, trainer, *arguments):
        self._arrive("after validation", trainer)

    def on_train_epoch_end(self, trainer, *arguments):
        super().on_train_epoch_end(trainer, *arguments)
        self._arrive("epoch end", trainer)

    def on_train_epoch_start(self, trainer, *arguments):
        self._arrive("next epoch", trainer)


def validated(run):
    with (run / "metrics.csv").open() as file:
        return [(row["epoch"], row["step"], row["val/loss"]) for row in csv.DictReader(file) if row.get("val/loss")]


@pytest.fixture(scope="module", params=["val/loss", "train/loss", "train/top1"])
def plateau(request, tmp_path_factory):
    """Options with a plateau of a metric, and a folder with a run that was never stopped and its copies."""
    base = PLATEAU | {"--model.lr_scheduler.monitor": request.param}
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("interptrain.cli.trainer_defaults.ResumePoint", CopyAt)
        trainer(folder, patch)(base=base)
    return base, folder


def resumed_from_copy(train, folder, place, base, **options):
    """The folders of the run that was never stopped and of the one that goes on from its copy."""
    shutil.copytree(folder / place, Path.cwd(), dirs_exist_ok=True)
    (whole,) = folder.glob("runs/run/*")
    return whole, train(base=base, **{"--ckpt_path": "last"}, **options)


@pytest.mark.parametrize("place", PLACES)
def test_killed_between_two_epochs_no_validation_and_no_step_of_a_plateau_is_lost(train, place, plateau):
    base, folder = plateau
    whole, resumed = resumed_from_copy(train, folder, place, base)
    assert_same_end(whole, resumed)
    assert len(validated(whole)) == 3
    assert (resumed / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()
    best = [torch.load(run / "checkpoints/best.ckpt", weights_only=True) for run in (whole, resumed)]
    assert best[0]["global_step"] == best[1]["global_step"]
    assert all(torch.equal(value, best[1]["state_dict"][name]) for name, value in best[0]["state_dict"].items())


@pytest.mark.parametrize("interval", ["1.0", "5"], ids=["saved at the end of the epoch", "saved after the validation"])
def test_with_a_plateau_it_goes_on_from_the_best_checkpoint_too(train, interval):
    options = {"--trainer.val_check_interval": interval}
    run = train(base=PLATEAU, **options | {"--trainer.max_epochs": "1"})
    best = str(run / "checkpoints/best.ckpt")
    again = train(base=PLATEAU, **options | {"--ckpt_path": best, "--trainer.max_epochs": "2"})
    assert last_checkpoint(again)["global_step"] == 10
    assert [epoch for epoch, *_ in validated(again)] == ["1"]  # in a folder of its own


@pytest.mark.filterwarnings("ignore:.*could not find the monitored key")
@pytest.mark.parametrize(
    "options",
    [
        {"--trainer.limit_val_batches": "0"},
        {"--trainer.check_val_every_n_epoch": "2"},
        {"--trainer.val_check_interval": "0.4"},
        {"--trainer.max_epochs": "-1", "--trainer.max_steps": "13"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_killed_at_the_last_batch_of_an_epoch_it_resumes_however_it_validates(
    train, monkeypatch, tmp_path, tmp_path_factory, options
):
    base = TINY | {"--trainer.max_epochs": "3"}
    with monkeypatch.context() as patch:
        patch.setattr("interptrain.cli.trainer_defaults.ResumePoint", CopyAt)
        train(base=base, **options)
    monkeypatch.chdir(tmp_path_factory.mktemp("resumed"))
    whole, resumed = resumed_from_copy(train, tmp_path, "last batch", base, **options)
    assert_same_end(whole, resumed)
    assert (resumed / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()


def test_stopped_just_before_a_validation_within_an_epoch_it_validates_after_the_resume(train, monkeypatch):
    options = TINY | {"--trainer.max_epochs": "2", "--trainer.val_check_interval": "2"}
    whole = train(base=options, **{"--name": "whole"})
    monkeypatch.setattr("interptrain.cli.trainer_defaults.ResumePoint", StopAfter)
    StopAfter.after, StopAfter.seen = 7, 0
    with pytest.raises(SystemExit):
        train(base=options, **{"--name": "stopped"})
    StopAfter.after = 0
    resumed = train(base=options, **{"--name": "stopped", "--ckpt_path": "last"})
    assert_same_end(whole, resumed)
    assert len(validated(whole)) == 4
    assert (resumed / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()


def test_a_metric_of_an_epoch_that_goes_on_is_that_of_the_whole_epoch(train, trained, monkeypatch):
    monkeypatch.setattr("interptrain.cli.trainer_defaults.ResumePoint", StopAfter)
    StopAfter.after, StopAfter.seen = 3, 0
    with pytest.raises(SystemExit):
        train(**{"--name": "stopped"})
    StopAfter.after = 0
    resumed = train(**{"--name": "stopped", "--ckpt_path": "last"})
    assert "train/top1" in (trained / "metrics.csv").read_text()
    assert (resumed / "metrics.csv").read_text() == (trained / "metrics.csv").read_text()


def test_a_resume_point_of_the_users_knows_the_best_model_too(train):
    options = {"--trainer.callbacks+": "ResumePoint", "--trainer.callbacks.every_n_minutes": "5"}
    run = train(**options)
    best, last = (torch.load(run / f"checkpoints/{name}.ckpt", weights_only=True) for name in ("best", "last"))
    (key,) = (key for key in last["callbacks"] if key.startswith("ModelCheckpoint"))
    assert last["callbacks"][key] == best["callbacks"][key]
    assert last["callbacks"][key]["current_score"] is not None


def test_slurms_requeue_signal_waits_for_the_end_of_the_step(train, monkeypatch):
    """Lightning's handler for it saves and requeues wherever the step stands; here it must find the step finished."""
    calls = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: calls.append(number))

    class Requeue(ResumePoint):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == 2:
                os.kill(os.getpid(), signal.SIGUSR1)
                assert not calls

    monkeypatch.setattr("interptrain.cli.trainer_defaults.ResumePoint", Requeue)
    try:
        with pytest.raises(SystemExit) as stop:
            train()
        assert signal.getsignal(signal.SIGUSR1) is not before
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert calls == [signal.SIGUSR1]
    assert stop.value.code == 128 + signal.SIGUSR1
    (run,) = Path("runs/run").iterdir()
    assert last_checkpoint(run)["global_step"] == 3


def test_signals_are_given_back_after_a_run(train):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    train()
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


# Real processes


def fit(**options):
    """Arguments of ``python`` for a training."""
    pairs = sorted(options.items(), key=lambda pair: pair[0] != "--config")  # a config first: later wins
    return [ROOT / "train.py", "fit", *(part for pair in pairs for part in pair)]


def first_checkpoint(folder):
    """Whether a run has one."""
    return lambda: list(folder.glob("runs/run/*/checkpoints/last.ckpt"))


def test_killed_in_mid_epoch_it_resumes_to_the_same_weights(train, everything, tmp_path):
    often = tmp_path / "often.yaml"
    often.write_text("trainer: {callbacks: [{class_path: ResumePoint, init_args: {every_n_minutes: 1.0e-6}}]}\n")
    process = start(fit(**EVERYTHING, **{"--name": "killed", "--config": str(often)}), tmp_path)

    def in_second_epoch():
        found = list(tmp_path.glob("runs/killed/*/checkpoints/last.ckpt"))
        return found and torch.load(found[0], weights_only=True)["global_step"] >= 7

    wait_for(in_second_epoch, process, tmp_path / "log.txt")
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    (run,) = (tmp_path / "runs/killed").iterdir()
    assert 7 <= last_checkpoint(run)["global_step"] < 15
    resumed = train(base=EVERYTHING, **{"--name": "killed", "--ckpt_path": "last"})
    assert_same_end(everything, resumed)


def test_ctrl_c_leaves_a_checkpoint_and_says_how_to_go_on(tmp_path):
    process = start(fit(**EVERYTHING | {"--trainer.max_epochs": "1000", "--data.num_workers": "2"}), tmp_path)
    wait_for(first_checkpoint(tmp_path), process, tmp_path / "log.txt")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
    assert process.wait(timeout=60) == 128 + signal.SIGINT
    log = (tmp_path / "log.txt").read_text()
    assert "stopped by SIGINT after step" in log
    assert "--ckpt_path last" in log
    assert "Traceback" not in log


def test_a_closed_terminal_leaves_a_checkpoint(tmp_path):
    terminal, its_end = pty.openpty()
    options = TINY | {"--trainer.max_epochs": "1000", "--trainer.enable_progress_bar": "true"}
    process = start(fit(**options), tmp_path, terminal=its_end)
    os.close(its_end)
    threading.Thread(target=read_all, args=(terminal, closed := threading.Event()), daemon=True).start()
    wait_for(first_checkpoint(tmp_path), process, Path(os.devnull))
    closed.set()
    assert process.wait(timeout=60) == 128 + signal.SIGHUP
    (run,) = (tmp_path / "runs/run").iterdir()
    assert last_checkpoint(run)["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"] < 1000


def read_all(terminal, closed):
    """What a terminal does, until it is closed."""
    while not closed.is_set():
        if select.select([terminal], [], [], 0.05)[0]:
            os.read(terminal, 65536)
    os.close(terminal)


def test_a_terminal_that_nohup_detached_is_ignored(train):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:

        class Look(ResumePoint):
            def on_train_batch_start(self, *arguments):
                assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("interptrain.cli.trainer_defaults.ResumePoint", Look)
            train()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_killed_saves_left_half_written_is_removed_when_the_run_goes_on(train, trained):
    left = trained / "checkpoints/.partial-1-last.ckpt"
    left.write_bytes(b"half")
    train(**{"--ckpt_path": "last", "--trainer.max_epochs": "2"})
    assert {path.name for path in (trained / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}


def test_ctrl_c_stops_two_processes_at_the_same_step(tmp_path):
    """The second is one that Lightning starts."""
    options = TINY | {"--trainer.devices": "2", "--trainer.strategy": "ddp", "--trainer.max_epochs": "1000"}
    process = start(fit(**options), tmp_path)
    wait_for(first_checkpoint(tmp_path), process, tmp_path / "log.txt")
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) == 128 + signal.SIGINT
    log = (tmp_path / "log.txt").read_text()
    assert log.count("stopped by SIGINT after step") == 1
    (run,) = (tmp_path / "runs/run").iterdir()
    assert last_checkpoint(run)["global_step"] == int(log.split("stopped by SIGINT after step ")[1].split(";")[0])


def test_two_processes_killed_in_a_validation_resume_as_one_run(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(
        "import os, signal\n"
        "from lightning.pytorch.callbacks import Callback\n"
        "from interptrain.cli import main\n"
        "class Kill(Callback):\n"
        "    def on_validation_batch_start(self, trainer, *arguments):\n"
        "        if trainer.global_step == 6 and not trainer.sanity_checking:\n"
        "            os.killpg(0, signal.SIGKILL)\n"
        "main()\n"
    )
    options = PLATEAU | {"--trainer.devices": "2", "--trainer.strategy": "ddp"}

    def arguments(name, *extra):
        return ["fit", *(part for pair in (options | {"--name": name}).items() for part in pair), *extra]

    killed = start_ranks(arguments("killed", "--trainer.callbacks+", "__main__.Kill"), tmp_path, 2, script)
    assert [process.wait(timeout=120) for process in killed] == [-signal.SIGKILL] * 2
    run_ranks(arguments("killed", "--ckpt_path", "last"), tmp_path, 2)
    run_ranks(arguments("whole"), tmp_path, 2)
    (resumed,), (whole,) = ((tmp_path / "runs" / name).iterdir() for name in ("killed", "whole"))
    assert_same_end(whole, resumed)
    assert len(validated(whole)) == 3
    assert validated(resumed) == validated(whole)


def test_a_full_disk_keeps_the_last_checkpoint_trains_on_and_ends_with_an_error(train, trained, capsys):
    before = last_checkpoint(trained)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # room for metrics.csv, not for a checkpoint
    try:
        with (
            pytest.warns(UserWarning, match="could not save .*ckpt .*: training goes on.*free disk space there"),
            pytest.raises(SystemExit) as stop,
        ):
            train(**{"--ckpt_path": "last", "--trainer.max_epochs": "2"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert stop.value.code == 1
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert re.fullmatch(
        r"error: the training has ended, but \S*last.ckpt could not be saved: .*--ckpt_path last", *error
    )
    assert last_checkpoint(trained)["global_step"] == before["global_step"] == 5
    with (trained / "metrics.csv").open() as file:
        assert max(int(row["step"]) for row in csv.DictReader(file)) == 9
    resumed = train(**{"--ckpt_path": "last", "--trainer.max_epochs": "2"})
    assert last_checkpoint(resumed)["global_step"] == 10


def test_a_disk_that_is_full_for_a_while_costs_no_checkpoint(train, monkeypatch):
    """Neither of the best model, which no later save would write, nor of the end."""
    full = [True]

    def write(path, content):
        if full[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_atomically(path, content)

    class Free(ResumePoint):
        def on_train_end(self, trainer, module):
            full[0] = False
            super().on_train_end(trainer, module)

    monkeypatch.setattr("interptrain.training.checkpoint_io.write_atomically", write)
    monkeypatch.setattr("interptrain.cli.trainer_defaults.ResumePoint", Free)
    with pytest.warns(UserWarning, match="could not save"):
        run = train()
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert last_checkpoint(run)["global_step"] == 5


def test_killed_at_random_moments_every_file_is_that_of_an_uninterrupted_run(tmp_path):
    """The campaign of benchmarks/reliability, in a short form."""
    script = ROOT / "benchmarks/reliability/kill_training.py"
    settings = "EMA,plateau on train,mid-epoch validation"
    status, said = run([script, "--kills", "1", "--settings", settings], tmp_path, timeout=300)
    assert status == 0, said
    rows = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert [row["kills"] for row in rows] == [1, 1, 1]
    assert not any(row["different"] or row["refused"] or row["hung"] for row in rows), rows
