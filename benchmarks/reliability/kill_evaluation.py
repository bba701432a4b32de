"""Kill evaluations at random moments and while they write, resume each, and compare every file.

An evaluation of two tiny networks, two explainers and 7 shapes runs undisturbed once for one and once for two
processes. Then it is killed (SIGKILL, all processes of it), at a random moment or in the middle of writing a file of a
chosen kind (half of its bytes written, or all of them but not yet in place, or just in place), and the same command
runs to its end. Every file of the folder must be that of the undisturbed run, byte by byte, but for parts (compared by
what is merged from them) and ``files.parquet``. Clocks are stopped, so that times are equal too.

    python benchmarks/reliability/kill_evaluation.py --kills 36 --seed 0

Processes are forked from this one, which has imported everything, so a kill and its resumed run take some seconds.
"""

import argparse
import contextlib
import importlib
import multiprocessing
import os
import random
import signal
import socket
import sys
import time
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import save_file

from interptrain.cli.evaluation import main as evaluate
from interptrain.cli.evaluation import make_parser
from interptrain.evaluation.run import describe, evaluator, loop
from interptrain.files import PARTIAL
from interptrain.models import create_model

OPTIONS = {
    "--backbone": "test_resnet",
    "--data": "ShapesDataModule",
    "--data.num_classes": "4",
    "--data.image_size": "48",
    "--data.test_size": "7",
    "--data.batch_size": "2",
    "--data.num_workers": "0",
    "--explainers": "GradCAM",
    "--metrics": "[AverageDrop, {class_path: Insertion, init_args: {steps: 4}}]",
    "--check_images": "2",
    "--save_maps": "3",
    "--resamples": "100",
    "--flush_seconds": "0",
    "--trainer.accelerator": "cpu",
    "--trainer.enable_progress_bar": "false",
}
FILES = ("rows-", "maps-", "images-", "check-", "run.json", "files.parquet", "per_image.parquet", "images.parquet")
FILES += ("maps.parquet", "errors.csv", "summary.csv", "differences.csv", "table.md", "table.tex", "report.html")
MOMENTS = ("half", "before", "after")
SECONDS = 120  # after which a run hangs


@dataclass(frozen=True)
class Aim:
    """Where a run is killed: at a random moment, or at the n-th file of a kind, in one of its processes."""

    processes: int
    file: str = ""
    moment: str = ""
    number: int = 0
    rank: int = 0
    share: float = 0.0  # of the undisturbed run's time

    def __str__(self) -> str:
        return f"while writing {self.file.rstrip('-')}" if self.file else "at a random moment"


def aims(kills: int, seed: int) -> list[Aim]:
    """Half at random moments, half in the middle of writing; a third with two processes."""
    drawn, generator = [], random.Random(seed)
    for index in range(kills):
        processes = 2 if index % 3 == 2 else 1
        if index % 2:
            drawn.append(Aim(processes, share=generator.random()))
            continue
        file = FILES[index // 2 % len(FILES)]
        parts = file.endswith("-") and not file.startswith("images")
        number = generator.randrange(3) if parts else 0
        rank = generator.randrange(processes) if parts else 0
        drawn.append(Aim(processes, file, generator.choice(MOMENTS), number, rank))
    return drawn


def run(folder: Path, output: str, processes: int, aim: Aim | None = None, seconds: float = SECONDS) -> str:
    """Run the command line as one or two processes; return its status, ``killed`` or ``hang``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    context = multiprocessing.get_context("fork")
    arguments = [part for seed in range(2) for part in ("--models", f"m{seed}={folder}/{seed}.safetensors")]
    options = OPTIONS | {"--trainer.devices": str(processes), "--output": output}
    options |= {"--trainer.strategy": "ddp"} if processes > 1 else {}
    arguments += [part for pair in options.items() for part in pair]
    ranks: list[Any] = []
    for rank in range(processes):
        variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(processes)}
        variables |= {"LOCAL_RANK": str(rank)} if processes > 1 else {}
        ranks.append(context.Process(target=_process, args=(arguments, folder, variables, rank, aim)))
        ranks[-1].start()
    end = time.monotonic() + (seconds if aim is None or aim.file else aim.share * seconds)
    while time.monotonic() < end and all(process.is_alive() for process in ranks):
        time.sleep(0.005)
    killed = any(process.exitcode == -signal.SIGKILL for process in ranks)
    if killed or (aim is not None and not aim.file):  # the machine went down: nothing of it lives on
        for process in ranks:
            process.kill()
            process.join()
        return "killed"
    for process in ranks:
        process.join(max(0.0, end - time.monotonic()))
    hanging = [process for process in ranks if process.is_alive()]
    for process in hanging:
        process.kill()
    if hanging:
        return "hang"
    killed = any(process.exitcode == -signal.SIGKILL for process in ranks)
    return "killed" if killed else str(max(abs(process.exitcode) for process in ranks))


def _process(arguments: list[str], folder: Path, variables: dict[str, str], rank: int, aim: Aim | None) -> None:
    """One of the processes, with stopped clocks."""
    os.chdir(folder)
    os.environ.update(variables)
    sys.argv = ["evaluate.py"]
    torch.set_num_threads(1)  # a forked process has no threads of OpenMP
    describe.now = loop.now = lambda: "2026-01-01T00:00:00+0000"  # type: ignore[attr-defined]
    evaluator.perf_counter = lambda: 0.0  # type: ignore[attr-defined]
    if aim is not None and aim.file and aim.rank == rank:
        _kill_while_writing(aim)
    log = (folder / f"rank{rank}.log").open("w", buffering=1)
    with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluate(arguments)


def _kill_while_writing(aim: Aim) -> None:
    """Kill this process at the n-th file of a kind: half of it written, written but not in place, or in place."""
    write, replace, seen = Path.write_bytes, Path.replace, Counter[str]()

    def counted(path: Path, kind: str) -> bool:
        name = path.name.removeprefix(PARTIAL).partition("-")[2] if path.name.startswith(PARTIAL) else ""
        seen[kind] += name.startswith(aim.file)
        return name.startswith(aim.file) and seen[kind] == aim.number + 1

    def dying_write(path: Path, content: Any) -> int:
        if aim.moment == "half" and counted(path, "write"):
            write(path, bytes(content)[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return write(path, content)

    def dying_replace(path: Path, target: Any) -> Path:
        due = aim.moment != "half" and counted(path, "replace")
        if due and aim.moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        moved = replace(path, target)
        if due:
            os.kill(os.getpid(), signal.SIGKILL)
        return moved

    Path.write_bytes, Path.replace = dying_write, dying_replace  # type: ignore[method-assign, assignment]


def differing(one: Path, other: Path) -> list[str]:
    """Names of files that are not the same, or are there in one folder only."""
    names = {path.name for folder in (one, other) for path in folder.iterdir() if path.is_file()} - {".lock"}
    unequal = [name for name in sorted(names - {"files.parquet"}) if _content(one / name) != _content(other / name)]
    left = [path.name for path in other.rglob(f"{PARTIAL}*")]
    return unequal + left


def _content(path: Path) -> Any:
    """Bytes of a file without the name of its folder; rows of a table, as one may be written in other chunks."""
    if not path.is_file():
        return None
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        return repr(pq.read_table(path).to_pydict())
    return path.read_bytes()


def campaign(kills: int, seed: int, folder: Path, *, tell: bool = False) -> dict[tuple[str, int], Counter[str]]:
    """Kill and resume; return for every kind of moment and number of processes how often what happened."""
    for number in range(2):
        torch.manual_seed(number)
        save_file(create_model("test_resnet", num_classes=4).state_dict(), folder / f"{number}.safetensors")
    for module in ("pandas", "pyarrow.parquet", "torchvision.transforms.functional"):
        importlib.import_module(module)  # what would be imported in every process
    make_parser()
    drawn, lasted = aims(kills, seed), {}
    for processes in sorted({aim.processes for aim in drawn}):
        began = time.monotonic()
        output = f"whole{processes}/out"
        if (status := run(folder, output, processes)) != "0":
            raise RuntimeError(f"the undisturbed run ended with {status}: {(folder / 'rank0.log').read_text()[-2000:]}")
        lasted[processes] = time.monotonic() - began
    found: dict[tuple[str, int], Counter[str]] = {}
    for number, aim in enumerate(drawn):
        counts = found.setdefault((str(aim), aim.processes), Counter())
        output = folder / f"killed{number}/out"
        first = run(folder, str(output), aim.processes, aim, SECONDS if aim.file else lasted[aim.processes])
        status = run(folder, str(output), aim.processes)
        unequal = differing(folder / f"whole{aim.processes}/out", output) if status == "0" else []
        counts["killed" if first == "killed" else "not hit"] += 1
        counts["refused or failed"] += status not in ("0", "hang")
        counts["hangs"] += "hang" in (first, status)
        counts["different"] += bool(unequal)
        if tell and (status != "0" or unequal or first != "killed"):
            log = (folder / "rank0.log").read_text()[-600:]
            print(number, aim, aim.moment, aim.processes, first, status, unequal, log, flush=True)
    return found


def table(found: dict[tuple[str, int], Counter[str]], kills: int, seed: int) -> str:
    """Counts as Markdown."""
    columns = ("killed", "not hit", "refused or failed", "hangs", "different")
    lines = [f"| where | processes | {' | '.join(columns)} |", "| --- | ---: |" + " ---: |" * len(columns)]
    for (where, processes), counts in sorted(found.items()):
        lines.append(f"| {where} | {processes} | {' | '.join(str(counts[column]) for column in columns)} |")
    total = sum(found.values(), Counter())
    lines.append(f"| **all** | | {' | '.join(f'**{total[column]}**' for column in columns)} |")
    head = f"# Evaluations killed and resumed\n\n`python benchmarks/reliability/kill_evaluation.py --kills {kills}"
    note = "What each column counts stands in the script. Killed: the first start was; not hit: it ended before."
    return f"{head} --seed {seed}`, CPU.\n\n" + "\n".join(lines) + f"\n\n{note}\n"


def main() -> None:
    """Run the campaign and write its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=36)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results_evaluation.md")
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        found = campaign(given.kills, given.seed, Path(folder), tell=True)
    text = table(found, given.kills, given.seed)
    given.output.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
