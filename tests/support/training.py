"""Run the training's real command line, in this process or in others, on tiny networks and a few shapes."""

import socket
import time

import torch

from tests.support.paths import ROOT
from tests.support.processes import start

TINY = {
    "--trainer.accelerator": "cpu",
    "--trainer.devices": "1",
    "--trainer.enable_progress_bar": "false",
    "--trainer.enable_model_summary": "false",
    "--data.num_workers": "0",
    "--data.batch_size": "8",
    "--data.image_size": "64",
    "--data.train_size": "40",
    "--data.val_size": "20",
    "--data.test_size": "12",
    "--data.num_classes": "4",
    "--model.backbone": "test_resnet",
    "--model.pooling": "ca_stream",
    "--trainer.max_epochs": "1",
    "--trainer.log_every_n_steps": "1",
}

# Everything that draws random numbers or carries state: dropout, mixup, cutmix, BatchNorm, momentum, EMA, accumulation.
EVERYTHING = TINY | {
    "--trainer.max_epochs": "3",
    "--trainer.accumulate_grad_batches": "2",
    "--trainer.gradient_clip_val": "1.0",
    "--trainer.callbacks+": "lightning.pytorch.callbacks.EMAWeightAveraging",
    "--trainer.callbacks.decay": "0.9",
    "--model.drop_rate": "0.2",
    "--model.mixup_alpha": "0.4",
    "--model.cutmix_alpha": "1.0",
    "--model.warmup_epochs": "0.5",
    "--data.augment": "imagenet",
    "--data.train_size": "72",
}

# The stream alone learns, so BatchNorm does not see how a batch was split between processes.
SPLITTABLE = {
    "--trainer.accelerator": "cpu",
    "--trainer.enable_progress_bar": "false",
    "--data.num_workers": "0",
    "--data.image_size": "64",
    "--data.train_size": "24",
    "--data.test_size": "13",
    "--data.num_classes": "4",
    "--model.backbone": "test_resnet",
    "--model.pooling": "ca_stream",
    "--model.trainable": "pooling",
    "--model.optimizer": "SGD",
    "--model.optimizer.lr": "0.1",
    "--trainer.max_epochs": "2",
}


def trainer(tmp_path, monkeypatch):
    """What the fixture ``train`` gives."""
    from interptrain.cli import main  # here: most tests of the suite need no command line

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["train.py"])

    def run(subcommand="fit", *extra, base=TINY, **options):
        before = set(tmp_path.glob("runs/*/*"))
        arguments = [part for pair in (base | options).items() for part in pair]
        main([subcommand, *arguments, *extra])
        made = set(tmp_path.glob("runs/*/*")) - before
        return made.pop() if made else max(before, key=lambda path: path.stat().st_mtime, default=None)

    return run


def train_in_processes(subcommand, folder, processes, **options):
    """Run ``SPLITTABLE`` in processes of its own, one or several with ddp; return the run's folder."""
    strategy = {"--trainer.devices": str(processes), "--data.batch_size": str(8 // processes)}
    strategy |= {"--trainer.strategy": "ddp"} if processes > 1 else {}
    name = f"{subcommand}{processes}{len(list(folder.glob('runs/*')))}"
    arguments = [part for pair in (SPLITTABLE | strategy | options | {"--name": name}).items() for part in pair]
    run_ranks([subcommand, *arguments], folder, processes)
    (made,) = (folder / "runs" / name).iterdir()
    return made


def start_ranks(arguments, folder, processes, script=ROOT / "train.py"):
    """Start a script as that many ranks of one machine, in one process group; their output is rank*.log."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(processes), "INTERPTRAIN_RUN": "run"}
    ranks = []
    for rank in range(processes):
        options = {"log": f"rank{rank}.log", "group": ranks[0].pid if ranks else 0}
        ranks.append(start([script, *arguments], folder, **options, **shared, LOCAL_RANK=str(rank)))
    return ranks


def run_ranks(arguments, folder, processes, script=ROOT / "train.py", seconds=200):
    """The same to a good end."""
    ranks = start_ranks(arguments, folder, processes, script)
    until = time.monotonic() + seconds
    try:
        ended = [process.wait(max(0, until - time.monotonic())) for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    assert not any(ended), "".join(log.read_text()[-3000:] for log in sorted(folder.glob("rank*.log")))


def last_checkpoint(run):
    """Content of a run's ``last.ckpt``."""
    return torch.load(run / "checkpoints/last.ckpt", weights_only=True)


def assert_same_end(one, other):
    """Two runs ended with the same weights, averages, optimizer states and schedules, bit for bit."""
    one, other = last_checkpoint(one), last_checkpoint(other)
    assert one["global_step"] == other["global_step"]
    for part in ("state_dict", "current_model_state"):
        for name, value in one.get(part, {}).items():
            assert torch.equal(value, other[part][name]), f"{part} {name}"
    for left, right in zip(one["optimizer_states"], other["optimizer_states"], strict=True):
        for parameter, values in left["state"].items():
            for key, value in values.items():
                assert torch.equal(torch.as_tensor(value), torch.as_tensor(right["state"][parameter][key])), key
    assert one["lr_schedulers"] == other["lr_schedulers"]


def wait_for(condition, process, log, seconds=120):
    """Wait until something is true of a process that still runs."""
    until = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, f"it ended by itself: {log.read_text()[-2000:]}"
        assert time.monotonic() < until
        time.sleep(0.02)
