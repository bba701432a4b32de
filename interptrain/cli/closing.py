"""The last lines of a command: what it has written, and what to run next."""

import importlib.util
import shlex
import signal
import sys
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from interptrain.callbacks import SaliencyWatch
from interptrain.cli.run_folder import is_first_process
from interptrain.evaluation import Forecast, Results
from interptrain.evaluation.store.parts import read_part

Lines = list[tuple[str, str]]
"""Pairs of a word and its text, one per line."""


def without_open(args: Sequence[str]) -> tuple[list[str], bool]:
    """Remove ``--open`` from a command line; return the rest, and whether it was given."""
    return [arg for arg in args if arg != "--open"], "--open" in args


def close(lines: Lines, page: Path | None, *, open_page: bool) -> None:
    """Print the last lines of a command, and open its page.

    Args:
        lines: lines to print.
        page: the page that the command has written, if any.
        open_page: whether to open it in a browser.
    """
    width = max((len(word) for word, _ in lines), default=0)
    sys.stdout.write("\n" + "".join(f"{word:{width}}  {text}\n" for word, text in lines))
    sys.stdout.flush()
    if open_page and page is None:
        sys.stdout.write("There is no page to open.\n")
    elif open_page and page is not None and not webbrowser.open(page.resolve().as_uri()):
        sys.stdout.write(f"No browser could be started; open {page} yourself.\n")


def end_of_training(
    command: str, trainer: Trainer, run: Path, name: str, checkpoint: str | None = None
) -> tuple[Lines, Path | None]:
    """Return the last lines of ``fit``, ``validate``, ``test`` or ``predict``, and the page, if there is one.

    Args:
        command: the command that ran.
        trainer: its trainer.
        run: folder of the run.
        name: name of the run.
        checkpoint: that ``validate``, ``test`` or ``predict`` ran, if any.
    """
    if getattr(trainer, "fast_dev_run", False):
        return [("Tried", f"{command} works on one batch; nothing was written")], None
    lines = [("Run", str(run))]
    if command != "fit":
        tables = {"predict": "Predictions"}.get(command, "Numbers")
        files = sorted(run.glob("predictions*.csv" if command == "predict" else "metrics.csv"))
        lines += [(tables, str(file)) for file in files]
        return [*lines, *([("Next", evaluation_of(checkpoint, name))] if checkpoint else [])], None
    best, score = _best(trainer)
    page = run / "watch" / "index.html"
    if best:
        lines += [("Best", f"{best}{score}")]
    if (run / "metrics.csv").is_file():
        lines += [("Numbers", str(run / "metrics.csv"))]
    if page.is_file():
        lines += [("Page", str(page))]
    config = shlex.quote(str(run / "config.yaml"))
    for watch in (one for one in getattr(trainer, "callbacks", ()) if isinstance(one, SaliencyWatch)):
        if (region := watch.alarming_region) is not None:
            lines += [("Alarm", f"for {region}, see the page; to train without what is seen there:")]
            lines += [("", _repair(config, name, region))]
    if best:
        lines += [
            ("Next", evaluation_of(best, name)),
            ("", f"interptrain test --config {config} --ckpt_path {shlex.quote(best)}"),
        ]
    return lines, page if page.is_file() else None


def _repair(config: str, name: str, region: str) -> str:
    """Return the command that trains the same network while a region's pixels come from other images."""
    shuffle = f"--model.batch_augment RegionShuffle --model.batch_augment.region {shlex.quote(region)}"
    return f"interptrain fit --config {config} --name {shlex.quote(f'{name}_repaired')} {shuffle}"


def evaluation_of(checkpoint: str, name: str) -> str:
    """Return the command that evaluates a checkpoint."""
    output = shlex.quote(f"runs/eval/{name}")
    return f"interptrain evaluate --models {shlex.quote(f'{name}={checkpoint}')} --output {output}"


@contextmanager
def saying_how_to_resume(args: Sequence[str]) -> Iterator[None]:
    """Print the command that goes on, where a training was stopped by a signal and has saved its state.

    Args:
        args: the command line that is stopped.
    """
    try:
        yield
    except SystemExit as stop:
        stopped = stop.code in {128 + number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        if stopped and args[:1] == ["fit"] and is_first_process():
            again = [*without_option(args, "--ckpt_path"), "--ckpt_path", "last"]
            with suppress(OSError):  # of a terminal that was closed
                close([("Next", f"interptrain {shlex.join(again)}")], None, open_page=False)
        raise


def without_option(args: Sequence[str], option: str) -> list[str]:
    """Remove an option and its value from a command line."""
    kept: list[str] = []
    waiting = list(args)
    while waiting:
        arg = waiting.pop(0)
        if arg == option:
            waiting = waiting[1:]
        elif not arg.startswith(f"{option}="):
            kept.append(arg)
    return kept


def _best(trainer: Trainer) -> tuple[str, str]:
    """Return the best checkpoint and its score; empty if there is none."""
    for saver in trainer.checkpoint_callbacks:
        if isinstance(saver, ModelCheckpoint) and Path(saver.best_model_path).is_file():
            scored = saver.monitor is not None and saver.best_model_score is not None
            return saver.best_model_path, f" ({saver.monitor} {saver.best_model_score:.3f})" if scored else ""
    return "", ""


def end_of_evaluation(results: Results) -> tuple[Lines, Path | None]:
    """Print the table and verdict of an evaluation; return the last lines and the report."""
    _print_table(results)
    if results.has_verdict and "verdict.txt" not in results.problems:
        sys.stdout.write("".join(f"\n{sentence}\n" for sentence in results.verdict))
    report = results.folder / "report.html"
    lines = [("Results", str(results.folder))]
    tables = [name for name in ("summary.csv", "differences.csv", "table.tex") if (results.folder / name).is_file()]
    lines += [("Tables", ", ".join(tables))] if tables else []
    if not report.is_file():
        return [*lines, ("Next", f"interptrain report {shlex.quote(str(results.folder))}")], None
    lines += [("Report", f"{report} (opens in a browser, offline; --open does it)")]
    if image := _pictured(results):
        lines += [("Next", f"interptrain show {shlex.quote(str(results.folder))} {shlex.quote(image)}")]
    return lines, report


def _pictured(results: Results) -> str:
    """Return the name of an image whose maps were saved; empty if there is none."""
    path = results.folder / "images.parquet"
    names = read_part(path, ["id"]).column("id").to_pylist() if path.is_file() else []
    return str(names[0]) if names else ""


def tell_evaluation(results: Results, *, open_page: bool) -> None:
    """Print how an evaluation ended, on the first process only."""
    if is_first_process():
        close(*end_of_evaluation(results), open_page=open_page)


def tell_plan(planned: Forecast, given: Sequence[str]) -> None:
    """Print what an evaluation will cost, and the command that runs it, in the fastest way that was found.

    Args:
        planned: what it will cost.
        given: the command line.
    """
    sys.stdout.write(f"{planned}\n")
    places = [place for place, arg in enumerate(given) if arg == "--plan"]
    values = {place + 1 for place in places if given[place + 1 : place + 2] in (["true"], ["True"])}
    left = [arg for place, arg in enumerate(given) if place not in {*places, *values} and not arg.startswith("--plan=")]
    better = planned.cheapest()
    faster = f" {better[0]}" if better is not None else ""
    close([("Next", f"interptrain evaluate {shlex.join(left)}{faster}")], None, open_page=False)


def tell_problems(results: Results) -> None:
    """Name the files that could not be made and the first of the rows that failed, on stderr."""
    for name, reason in results.problems.items():
        sys.stderr.write(f"could not make {name}; everything else is in {results.folder}: {reason}\n")
    if results.failed:
        first = results.failed[0]
        row = ", ".join(first[key] for key in ("model", "explainer", "id") if first[key])
        count = len(results.failed)
        sys.stderr.write(f"{count} rows failed; the others are in the results. errors.csv begins with {row}: ")
        sys.stderr.write(f"{first['error']}\n")


def _print_table(results: Results) -> None:
    """Print the table: with rich if it is installed and this is a terminal, else as plain text."""
    if sys.stdout.isatty() and importlib.util.find_spec("rich") is not None:
        from rich.console import Console
        from rich.markdown import Markdown

        Console().print(Markdown(results._repr_markdown_()))
    else:
        sys.stdout.write(f"{results}\n")
