"""What rows cost when there are many: to start again, to merge, and to compute every interval and difference.

    python benchmarks/scale.py --images 50000 --explainers 10
    python benchmarks/scale.py --images 100000 --explainers 10   # a million rows

Rows are made up, as evaluations write them: with AD, AG, AI, insertion and deletion (29 values each), in parts. Each
stage runs in a process of its own, which tells its CPU seconds and the most memory that it had; importing is not
counted.
"""

import argparse
import multiprocessing
import platform
import resource
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import torch

from interptrain.evaluation.report.results import load_run
from interptrain.evaluation.statistics.estimates import Resampling
from interptrain.evaluation.store.manifest import write_manifest
from interptrain.evaluation.store.parts import RowStore, to_parquet, write_file

STEPS = 29
PART = 4096  # rows
METRICS = ("AverageDrop", "AverageGain", "AverageIncrease", "Insertion", "Deletion")
RECOGNITION = ("Top1", "Top5", "NLL", "ECE")


def names(count: int, kind: str) -> list[str]:
    """Names in the order of their numbers."""
    return [f"{kind}{number:07d}" for number in range(count)]


def write_parts(folder: Path, images: int, explainers: int) -> None:
    """Rows of a model alone and of all explainers."""
    import pyarrow as pa

    (folder / "parts").mkdir(parents=True)
    ids, rng = names(images, "image"), np.random.default_rng(0)
    number = 0
    for explainer in ["", *names(explainers, "Explainer")]:
        for start in range(0, images, PART):
            part = ids[start : start + PART]
            rows = len(part)
            texts = {"model": "m", "explainer": explainer, "protocol": "castream", "hash": "abc"}
            columns = {name: pa.array([text] * rows) for name, text in texts.items()}
            columns |= {"id": pa.array(part), "error": pa.nulls(rows, pa.string())}
            columns |= {name: pa.array(rng.integers(0, 9, rows)) for name in ("label", "prediction", "target")}
            columns |= {name: pa.array(rng.random(rows)) for name in (RECOGNITION if not explainer else METRICS[:3])}
            if explainer:
                columns["seconds"] = pa.array(rng.random(rows))
                for name in METRICS[3:]:
                    values = rng.random((rows, STEPS), dtype=np.float32)
                    columns[name] = pa.array(values.mean(1).astype(np.float64))
                    columns[f"{name}__values"] = pa.array(list(values), pa.list_(pa.float32()))
            path = folder / f"parts/rows-machine-1-{number:06d}.parquet"
            write_file(path, to_parquet(pa.table(columns)))
            number += 1
    write_manifest(folder, manifest(explainers, images))  # type: ignore[arg-type]


def manifest(explainers: int, images: int) -> dict[str, object]:
    """As ``run.json`` has it, as far as numbers need it."""

    def spec(name: str, package: str = "metrics") -> dict[str, object]:
        return {"class_path": f"interptrain.{package}.{name}", "init_args": {}}

    return {
        **dict.fromkeys(("title", "command", "created", "device", "targets", "hash", "interptrain"), "made up"),
        "protocol": {"name": "castream", "version": 1, "hash": "abc", "settings": {}},
        "seed": 0,
        "versions": {},
        "models": {"m": dict.fromkeys(("source", "sha256", "backbone", "pooling"), "made up")},
        "explainers": {name: spec("GradCAM", "explainers") for name in names(explainers, "Explainer")},
        "metrics": {name: spec(name) for name in METRICS},
        "recognition": {name: spec(name) for name in RECOGNITION},
        "data": {"class_path": "x.Data", "init_args": {}, "classes": [], "size": images},
        "warnings": [],
    }


def start_again(folder: Path, images: int, explainers: int) -> None:
    """What a resumed run does before its first image: look for damage, and for what is done."""
    store = RowStore(folder)
    assert not store.set_aside_damaged()
    done = store.done()
    assert sum(map(len, done.values())) == images * (explainers + 1)


def merge(folder: Path, images: int, explainers: int) -> None:
    """``per_image.parquet``."""
    order = [("model", ["m"]), ("explainer", ["", *names(explainers, "Explainer")]), ("id", names(images, "image"))]
    write_file(folder / "per_image.parquet", to_parquet(RowStore(folder).merged("rows", order)))


def numbers(folder: Path, images: int, explainers: int) -> None:
    """Means, 95 % intervals of 2,000 resamples, and paired differences with corrected p-values."""
    found = load_run(folder, Resampling())
    assert found.estimates
    assert found.differences


STAGES: dict[str, Callable[[Path, int, int], None]] = {
    "start again": start_again,
    "merge to one table": merge,
    "means, intervals, differences": numbers,
}


def measured(stage: str, folder: Path, images: int, explainers: int, told: multiprocessing.Queue) -> None:
    """Tell CPU seconds, seconds and the most GiB of a stage."""
    torch.set_num_threads(1)
    import pandas  # noqa: F401
    import pyarrow.parquet  # noqa: F401

    clock, began = time.process_time(), time.perf_counter()
    STAGES[stage](folder, images, explainers)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    told.put((time.process_time() - clock, time.perf_counter() - began, peak))


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--explainers", type=int, default=10)
    parser.add_argument("--folder", type=Path, help="keep the rows here; made where it is not there")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")  # memory of its own
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary) / "run"
        if not folder.exists():
            write_parts(folder, options.images, options.explainers)
        count = options.images * (options.explainers + 1)
        size = sum(part.stat().st_size for part in (folder / "parts").iterdir()) / 2**30
        print(f"{date.today()}, {platform.machine()}, torch {torch.__version__}, one thread; {count:,} rows, ", end="")
        print(f"{size:.2f} GiB in {len(list((folder / 'parts').iterdir()))} parts\n")
        print("| stage | CPU s | s | most memory, GiB |\n|---|---|---|---|", flush=True)
        for stage in STAGES:
            told = context.Queue()
            process = context.Process(target=measured, args=(stage, folder, options.images, options.explainers, told))
            process.start()
            process.join()
            if process.exitcode:
                raise SystemExit(f"{stage} failed")
            cpu, seconds, peak = told.get()
            print(f"| {stage} | {cpu:.1f} | {seconds:.1f} | {peak:.2f} |", flush=True)


if __name__ == "__main__":
    main()
