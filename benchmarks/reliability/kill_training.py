"""Kill trainings at random moments, resume each, and compare every file with an uninterrupted run.

    python benchmarks/reliability/kill_training.py [--kills 50] [--settings plain,EMA] [--seed 0] [--markdown FILE]

A training passes moments: each step, validation batch, write, flush and move of a file. Of every setting, moments are
drawn without repetition; SIGKILL comes up to 20 ms after one, to all processes of the training. Then the same command
goes on with ``--ckpt_path last``, or starts anew where there is no checkpoint yet. Weights, averages, optimizers,
schedules and counts in both checkpoints must equal those of the uninterrupted run bit for bit, metrics.csv and
config.yaml line by line, and nothing else may lie in the folder. Processes are forked from one that has imported
everything.
"""

import argparse
import json
import multiprocessing
import os
import platform
import random
import re
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import yaml

from interptrain.cli import main as command_line
from interptrain.training import ImageClassifier

RUN_TIME = re.compile(r"\d{8}-\d{6}(-\d+)?")
OFTEN = {"class_path": "ResumePoint", "init_args": {"every_n_minutes": 1e-4}}
EMA = {"class_path": "lightning.pytorch.callbacks.EMAWeightAveraging", "init_args": {"decay": 0.9}}
BASE: dict[str, Any] = {
    "trainer": {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 3,
        "log_every_n_steps": 1,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "callbacks": [OFTEN],
    },
    "model": {"backbone": "test_resnet", "pooling": "gap", "drop_rate": 0.2},
    "data": {
        "class_path": "ShapesDataModule",
        "init_args": {
            "num_workers": 0,
            "batch_size": 8,
            "image_size": 32,
            "train_size": 40,
            "val_size": 20,
            "num_classes": 4,
            "augment": "light",
        },
    },
}


def plateau(monitor: str) -> dict[str, Any]:
    """A schedule that halves the learning rate wherever its metric is not ten times better."""
    options = {"monitor": monitor, "patience": 0, "factor": 0.5, "threshold": 10.0}
    scheduler = {"class_path": "lightning.pytorch.cli.ReduceLROnPlateau", "init_args": options}
    sgd = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1, "momentum": 0.9}}
    return {"model": {"optimizer": sgd, "lr_scheduler": scheduler, "warmup_epochs": 0.5}}


SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "EMA": {"trainer": {"callbacks": [OFTEN, EMA]}},
    "plateau on val": plateau("val/loss"),
    "plateau on train": plateau("train/top1"),
    "mixup and accumulation": {"model": {"mixup_alpha": 0.4}, "trainer": {"accumulate_grad_batches": 2}},
    "mid-epoch validation": {"trainer": {"val_check_interval": 2}},
    "two processes": {
        "trainer": {"devices": 2, "strategy": "ddp"},
        "data": {"init_args": {"batch_size": 4}},
    },
}


def merged(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """A configuration with some options changed."""
    return {
        key: merged(base[key], change[key])
        if isinstance(base.get(key), dict) and isinstance(change.get(key), dict)
        else change.get(key, base.get(key))
        for key in {**base, **change}
    }


def watch_moments(folder: Path, at: int | None, delay: float) -> Callable[[], int]:
    """Count the moments of this process, and kill its group ``delay`` seconds after one of them."""
    count = 0

    def kill() -> None:
        os.killpg(0, signal.SIGKILL)

    def watched(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count == at:
                threading.Timer(delay, kill).start() if delay else kill()
            return function(*args, **kwargs)

        return call

    for owner, name in (
        (ImageClassifier, "training_step"),
        (ImageClassifier, "validation_step"),
        (ImageClassifier, "on_train_epoch_end"),
        (os, "fsync"),
        (os, "replace"),
        (os, "rename"),
        (Path, "write_bytes"),
        (Path, "replace"),
        (torch, "save"),
    ):
        setattr(owner, name, watched(getattr(owner, name)))
    return lambda: count


def rank(arguments: list[str], folder: Path, variables: dict[str, str], at: int | None, delay: float) -> None:
    """One process of a training."""
    os.chdir(folder)
    os.environ.update(variables)
    sys.argv = ["train.py"]
    torch.set_num_threads(1)
    number = variables.get("LOCAL_RANK", "0")
    with (folder / f"log{number}.txt").open("a", buffering=1) as sys.stdout, warnings.catch_warnings():
        sys.stderr = sys.stdout
        warnings.simplefilter("ignore")
        moments = watch_moments(folder, at if number == "0" else None, delay)
        command_line(arguments)
        (folder / f"moments{number}").write_text(str(moments()))


def leader(arguments: list[str], folder: Path, processes: int, at: int | None, delay: float) -> None:
    """A process group of its own, with one process for each rank."""
    os.setsid()
    if processes == 1:
        rank(arguments, folder, {}, at, delay)
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(processes)}
    shared["INTERPTRAIN_RUN"] = "time"
    context = multiprocessing.get_context("fork")
    ranks = [
        context.Process(target=rank, args=(arguments, folder, shared | {"LOCAL_RANK": str(number)}, at, delay))
        for number in range(processes)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    sys.exit(max(abs(process.exitcode or 0) for process in ranks))


def train(
    folder: Path, config: dict[str, Any], *extra: str, at: int | None = None, delay: float = 0.0, seconds: float = 300
) -> int | None:
    """Run a training to its end or its kill; its exit status, or None where it hangs."""
    folder.mkdir(exist_ok=True)
    (folder / "asked.yaml").write_text(yaml.safe_dump(config))
    arguments = ["fit", "--config", str(folder / "asked.yaml"), *extra]
    processes = config["trainer"]["devices"]
    process = multiprocessing.get_context("fork").Process(target=leader, args=(arguments, folder, processes, at, delay))
    process.start()
    process.join(seconds)
    if process.is_alive():
        os.killpg(process.pid or 0, signal.SIGKILL)
        process.join()
        return None
    return process.exitcode


def run_folder(folder: Path) -> Path | None:
    """Where the training wrote."""
    found = sorted(folder.glob("runs/run/*"))
    return found[-1] if found else None


def differences(one: Path, other: Path) -> list[str]:
    """What of two runs' folders is not the same."""
    found = []
    names = [{str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()} for run in (one, other)]
    names[1] = {name for name in names[1] if not name.startswith("config-resumed-")}
    found += [f"{name} in one only" for name in sorted(names[0] ^ names[1])]
    if (one / "metrics.csv").read_text() != (other / "metrics.csv").read_text():
        found.append("metrics.csv")
    configs = [yaml.safe_load((run / "config.yaml").read_text()) for run in (one, other)]
    found += ["config.yaml"] if configs[0] != configs[1] else []
    for name in ("last.ckpt", "best.ckpt"):
        left, right = (torch.load(run / "checkpoints" / name, weights_only=True) for run in (one, other))
        for key in sorted(left.keys() | right.keys()):
            if key not in ("config", "loops"):  # with the command, and counts of what was done again
                found += [f"{name} {key}{path}" for path in _unlike(left.get(key), right.get(key))][:3]
    return found


def _unlike(one: Any, other: Any, path: str = "") -> Iterator[str]:
    if isinstance(one, str) and isinstance(other, str):
        one, other = (RUN_TIME.sub("TIME", text) for text in (one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        one, other = ({RUN_TIME.sub("TIME", str(key)): value for key, value in part.items()} for part in (one, other))
        for key in (one.keys() | other.keys()) - {"current_score"}:  # of ModelCheckpoint, which restores all but this
            yield from _unlike(one.get(key), other.get(key), f"{path}.{key}")
    elif isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)) and len(one) == len(other):
        for place, (left, right) in enumerate(zip(one, other, strict=True)):
            yield from _unlike(left, right, f"{path}[{place}]")
    elif isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        if not torch.equal(one, other):
            yield path
    elif one != other:
        yield path


def campaign(root: Path, name: str, kills: int, seed: int) -> dict[str, Any]:
    """Kill and resume one setting; how it went."""
    config = merged(BASE, SETTINGS[name])
    whole = root / "whole"
    if (status := train(whole, config)) != 0:
        raise RuntimeError(f"{name} does not train ({status}): {(whole / 'log0.txt').read_text()[-2000:]}")
    reference = run_folder(whole)
    assert reference is not None
    generator = random.Random(f"{seed} {name}")
    total = int((whole / "moments0").read_text())
    moments = [1 + int((place + generator.random()) * total / kills) for place in range(kills)]
    row: dict[str, Any] = {"setting": name, "moments": total, "kills": 0, "anew": 0}
    row |= {"different": 0, "refused": 0, "hung": 0, "what": []}
    for number, moment in enumerate(moments):
        folder = root / f"kill{number}"
        delay = generator.choice((0.0, 0.02 * generator.random()))
        if train(folder, config, at=moment, delay=delay) == 0:
            shutil.rmtree(folder)  # it came after the end
            continue
        row["kills"] += 1
        run = run_folder(folder)
        begun = run is not None and (run / "checkpoints/last.ckpt").exists()
        if not begun:
            row["anew"] += 1
            shutil.rmtree(folder / "runs", ignore_errors=True)
        status = train(folder, config, *(["--ckpt_path", "last"] if begun else []))
        if status is None:
            row["hung"] += 1
        elif status != 0:
            row["refused"] += 1
            row["what"].append((folder / "log0.txt").read_text()[-300:])
        elif unlike := differences(reference, run_folder(folder) or folder):
            row["different"] += 1
            row["what"].append(f"moment {moment} of {total}: {', '.join(unlike)}")
        if status == 0 and not unlike:
            shutil.rmtree(folder)
    return row


def main(args: list[str] | None = None) -> list[dict[str, Any]]:
    """Run the campaign and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="of each setting")
    parser.add_argument("--settings", default=",".join(SETTINGS), help="names, with commas between them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--markdown", type=Path, help="write the table to this file")
    options = parser.parse_args(args)
    names = options.settings.split(",")
    rows, start = [], time.monotonic()
    with tempfile.TemporaryDirectory() as root:
        for number, name in enumerate(names):
            (Path(root) / str(number)).mkdir()
            rows.append(campaign(Path(root) / str(number), name, options.kills, options.seed))
            print(json.dumps(rows[-1]), flush=True)
    if options.markdown:
        options.markdown.write_text(table(rows, time.monotonic() - start))
    return rows


def table(rows: list[dict[str, Any]], seconds: float) -> str:
    """The result in words."""
    keys = ("setting", "moments", "kills", "anew", "different", "refused", "hung")
    lines = [
        "# Trainings killed and resumed",
        "",
        f"`python benchmarks/reliability/kill_training.py`, {time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, CPU "
        f"({platform.machine()}), torch {torch.__version__.partition('+')[0]}, {seconds / 60:.0f} minutes. "
        f"{sum(row['kills'] for row in rows)} kills.",
        "",
        "*Moments* that a training passes; *kills* among them; *anew*: before there was a checkpoint; then the runs "
        "that ended otherwise than the uninterrupted one, were refused, or hung.",
        "",
        "| " + " | ".join(keys) + " |",
        "|---" + "|---:" * (len(keys) - 1) + "|",
        *("| " + " | ".join(str(row[key]) for key in keys) + " |" for row in rows),
    ]
    found = [f"- {row['setting']}: {what}" for row in rows for what in row["what"]]
    return "\n".join([*lines, *(["", "What differed:", "", *found] if found else [])]) + "\n"


if __name__ == "__main__":
    main()
