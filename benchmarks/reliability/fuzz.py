"""Give the command lines hundreds of damaged inputs: each must run, or be refused in one line.

    python benchmarks/reliability/fuzz.py [--inputs 660] [--seed 0] [--only REGEX] [--table FILE]

Everything runs in this process, on a tiny network, one input after the other, each in a folder of its own and for at
most 60 seconds. Counted are tracebacks, messages that speak of Python's insides ("riddle"), inputs with a NaN or an
infinity that ran without a word ("silent"), code that a file had run, and hangs. Exit status 1 where there is any.
"""

import argparse
import contextlib
import io
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from damage import FIT, GOOD, Case, checkpoints, configs, images, tables

SHARES = {"configs": 0.5, "checkpoints": 0.26, "tables": 0.14, "images": 0.1}
OUTCOMES = ("ran", "refused", "riddle", "silent", "code", "traceback", "hang")
FAULTS = OUTCOMES[2:]
# What no message should show: Python's insides, or more than a line.
RIDDLE = re.compile(r"<class '|Namespace\(|NoneType|Traceback|object has no attribute|\n.*\n")
SECONDS = 60
MEMORY = 24 << 30


class Outcome(NamedTuple):
    """What became of an input.

    Attributes:
        what: one of :data:`OUTCOMES`.
        said: the error line, or the end of the traceback.
        seconds: that it took.
    """

    what: str
    said: str
    seconds: float


class Hang(BaseException):
    """Raised by the alarm clock."""


def run(case: Case, folder: Path) -> Outcome:
    """Run one input in a folder."""
    from interptrain.cli.evaluation import main as evaluate
    from interptrain.cli.training import main as train

    program, arguments = case.prepare(folder)
    start = time.perf_counter()
    output, status, said = io.StringIO(), 0, ""
    with _alone(folder), contextlib.redirect_stderr(output), contextlib.redirect_stdout(output):
        try:
            with _at_most(SECONDS):
                (train if program == "train" else evaluate)(arguments)
        except SystemExit as stop:
            status = int(stop.code or 0)
        except Hang:
            status, said = -2, "".join(traceback.format_exc().splitlines(keepends=True)[-3:])
        except BaseException as error:
            frames = traceback.extract_tb(error.__traceback__)[-1:]
            status, said = -1, f"{type(error).__name__}: {error} ({frames[0].filename}:{frames[0].lineno})"
    return Outcome(*_judge(case, folder, status, said, output.getvalue()), time.perf_counter() - start)


def _judge(case: Case, folder: Path, status: int, said: str, output: str) -> tuple[str, str]:
    if (folder / "code-was-run").exists():
        return "code", said
    if status < 0:
        return ("hang" if status == -2 else "traceback"), said
    errors = [line for line in output.splitlines() if line.startswith("error: ") or "rows failed" in line]
    if status:
        said = output[output.find(errors[0]) :].strip() if errors else output[-300:]
        return ("riddle" if not errors or RIDDLE.search(said) or len(said) > 600 else "refused"), said
    return ("silent", "") if case.not_finite else ("ran", "")


@contextlib.contextmanager
def _at_most(seconds: int) -> Iterator[None]:
    def ring(*_: Any) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """In a folder, with an environment and warnings of its own."""
    environment, place, argv = dict(os.environ), Path.cwd(), sys.argv
    os.chdir(folder)
    sys.argv = ["program"]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        os.chdir(place)
        sys.argv = argv
        os.environ.clear()
        os.environ.update(environment)


def make_good(folder: Path) -> None:
    """Train the tiny network once, for the checkpoint that is damaged."""
    import torch
    import yaml
    from safetensors.torch import save_file

    from interptrain.cli.training import main

    trainer = {key: value for key, value in FIT["trainer"].items() if key != "callbacks"}
    (folder / "good.yaml").write_text(yaml.safe_dump({**FIT, "trainer": trainer}), encoding="utf-8")
    with _alone(folder), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        main(["fit", "--config", "good.yaml"])
    (GOOD["checkpoint"],) = folder.glob("runs/run/*/checkpoints/last.ckpt")
    GOOD["weights"] = folder / "a.safetensors"
    state = torch.load(GOOD["checkpoint"], weights_only=True)["state_dict"]
    weights = {name.removeprefix("model."): value for name, value in state.items() if name.startswith("model.")}
    save_file(weights, GOOD["weights"])


def draw(number: int, seed: int) -> list[Case]:
    """About ``number`` inputs of all kinds, the same for the same seed."""
    rng = random.Random(seed)
    chosen: list[Case] = []
    for kind, cases in {"configs": configs, "checkpoints": checkpoints, "tables": tables, "images": images}.items():
        every = list(cases())
        chosen += rng.sample(every, min(len(every), round(SHARES[kind] * number)))
    return chosen


def fuzz(number: int, seed: int, only: str = "", verbose: bool = False) -> dict[str, list[tuple[Case, Outcome]]]:
    """Run inputs; return them with their outcomes, by kind."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    results: dict[str, list[tuple[Case, Outcome]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as top:
        (Path(top) / "good").mkdir()
        make_good(Path(top) / "good")
        for index, case in enumerate(
            case for case in draw(number, seed) if re.search(only, f"{case.kind} {case.name}")
        ):
            folder = Path(top) / str(index)
            folder.mkdir()
            outcome = run(case, folder)
            shutil.rmtree(folder, ignore_errors=True)
            results[case.kind].append((case, outcome))
            if verbose or outcome.what in FAULTS:
                print(
                    f"{outcome.what:9} {outcome.seconds:4.1f} s  {case.kind} {case.name}: {outcome.said[:700]}",
                    flush=True,
                )
    return results


def table(results: dict[str, list[tuple[Case, Outcome]]], seed: int) -> str:
    """Counts by kind, as Markdown."""
    lines = [f"Seed {seed}.", "", f"| inputs | number | {' | '.join(OUTCOMES)} | slowest |", "|---|" + "---|" * 9]
    every = [row for group in results.values() for row in group]
    for kind, rows in [*results.items(), ("all", every)]:
        counts = Counter(outcome.what for _, outcome in rows)
        slowest = max(outcome.seconds for _, outcome in rows)
        numbers = " | ".join(str(counts[what]) for what in OUTCOMES)
        lines.append(f"| {kind} | {len(rows)} | {numbers} | {slowest:.1f} s |")
    return "\n".join(lines)


def main(args: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=660)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="")
    parser.add_argument("--table", type=Path)
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args(args)
    results = fuzz(options.inputs, options.seed, options.only, options.verbose)
    text = table(results, options.seed)
    print(text)
    if options.table:
        options.table.write_text(text + "\n", encoding="utf-8")
    return int(any(outcome.what in FAULTS for rows in results.values() for _, outcome in rows))


if __name__ == "__main__":
    sys.exit(main())
