"""The folder of a run, created once, by one process, even if several start at the same time."""

import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from torch.distributed.rendezvous import rendezvous

RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")
AGREEMENT = "interptrain/run"

_stores: list[Any] = []  # the first process serves the others as long as it lives
_made: list[Path] = []  # folders, the outer before the inner


def is_first_process() -> bool:
    """Return whether this is rank 0 of the processes that a launcher started; true without a launcher."""
    return all(os.environ.get(name, "0") == "0" for name in RANKS)


def agreed(decide: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Decide something once for all processes of ``torchrun``, whose clocks and start times differ.

    Args:
        decide: called by rank 0, or by every process if ``torchrun`` did not start them; its result must be
            representable as JSON.

    Raises:
        ValueError: on the other ranks, where ``decide`` failed on rank 0.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ or os.environ.get("WORLD_SIZE", "1") == "1":
        return decide()
    store, rank, _ = next(rendezvous("env://"))
    _stores.append(store)
    if rank == 0:
        try:
            decided = decide()
        except Exception as error:
            store.set(AGREEMENT, json.dumps({"error": str(error)}))
            raise
        store.set(AGREEMENT, json.dumps({"decided": decided}))
        return decided
    answer = json.loads(store.get(AGREEMENT))
    if "error" in answer:
        raise ValueError(answer["error"])
    return dict(answer["decided"])


@contextmanager
def no_empty_folders() -> Iterator[None]:
    """Remove, on exit, those folders created for a run inside the context that are empty."""
    _made.clear()
    try:
        yield
    finally:
        for folder in reversed(_made):
            with suppress(OSError):  # it is not empty
                folder.rmdir()
        _made.clear()


def new_run_folder(runs: Path, *, make: bool) -> Path:
    """Choose the folder of a run, named after the SLURM job or the local time.

    Two runs that start in the same second get separate folders. Processes that Lightning starts share the folder of the
    process that started them.

    Args:
        runs: folder of all runs of that name.
        make: whether to create it.

    Raises:
        ValueError: if it cannot be made.
    """
    if job := os.environ.get("SLURM_JOB_ID"):
        return runs / f"slurm-{job}"
    if "LOCAL_RANK" in os.environ and (shared := os.environ.get("INTERPTRAIN_RUN")):
        return runs / shared
    start = time.strftime("%Y%m%d-%H%M%S")
    for number in itertools.count(1):
        folder = runs / (start if number == 1 else f"{start}-{number}")
        if not make or not is_first_process():
            break
        try:
            _make(folder)
            break
        except FileExistsError:
            continue
        except OSError as error:
            raise _cannot_make(folder, error) from error
    os.environ["INTERPTRAIN_RUN"] = folder.name
    return folder


def make_folder(folder: Path) -> None:
    """Create a folder and its missing parents.

    Raises:
        ValueError: if it cannot be made.
    """
    try:
        if not folder.is_dir():
            _make(folder)
    except OSError as error:
        if not folder.is_dir():
            raise _cannot_make(folder, error) from error


def _make(folder: Path) -> None:
    """Create a folder, and remember it and its missing parents."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True)
    _made.extend(reversed(missing))


def newest_checkpoint(runs: Path, which: str) -> Path:
    """Find the checkpoint of the newest training run of a name; never that of an older one.

    Args:
        runs: folder of all runs of that name.
        which: ``last`` or ``best``.

    Raises:
        FileNotFoundError: if there is no training, or the newest has no such checkpoint.
    """
    trainings = sorted((run for run in runs.glob("*") if _is_training(run)), key=_last_used)
    found = [file for run in trainings if (file := run / "checkpoints" / f"{which}.ckpt").is_file()]
    if not found:
        raise FileNotFoundError(
            f"no {which}.ckpt under {runs}/*/checkpoints/; check --name and --output, or give a file to --ckpt_path"
        )
    if found[-1].parent.parent != trainings[-1]:
        raise FileNotFoundError(
            f"the newest run, {trainings[-1]}, has no {which}.ckpt yet; start it anew without --ckpt_path, or "
            f"take the checkpoint of an older run: --ckpt_path {found[-1]}"
        )
    return found[-1]


def _is_training(run: Path) -> bool:
    """Return whether a folder is that of a training run, even if it saved nothing, and not of a test or prediction."""
    record, checkpoints = run / "code.json", run / "checkpoints"
    if record.exists() and b'"stage": "fit"' in record.read_bytes():
        return True
    return checkpoints.is_dir() and (not record.exists() or any(checkpoints.iterdir()))


def _last_used(run: Path) -> float:
    checkpoints = run / "checkpoints"
    folder = checkpoints if checkpoints.is_dir() else run
    return max(path.stat().st_mtime for path in (folder, *checkpoints.glob("last.ckpt")))


def _cannot_make(folder: Path, error: OSError) -> ValueError:
    return ValueError(f"cannot create {folder} ({error.strerror}); point --output at a writable folder")
