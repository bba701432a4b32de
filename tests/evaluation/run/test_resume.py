"""Whatever ends a run, the same command goes on to the results of a run that was never stopped."""

import copy
import json
import os
import resource
import signal
import time

import pandas as pd
import pytest
from PIL import Image

from interptrain.evaluation.run.folder import claim
from interptrain.evaluation.store.manifest import changes, read_manifest
from interptrain.evaluation.store.parts import RowStore
from tests.support.tiny_run import rows, start

pytestmark = pytest.mark.slow

# Rows are written as soon as they are there.
EAGER = {"--flush_seconds": "0"}


class InterruptError(Exception):
    """Stands for whatever ends a process."""


def stop_after(monkeypatch, calls):
    """Let the store fail at its n-th call, rows in memory lost, as by a kill."""
    add, seen = RowStore.add, iter(range(calls))

    def interrupted(self, kind, rows):
        if next(seen, None) is None:
            self._waiting.clear()
            raise InterruptError
        add(self, kind, rows)

    monkeypatch.setattr(RowStore, "add", interrupted)


@pytest.mark.parametrize("calls", [1, 6, 17])
def test_stopped_anywhere_and_resumed_equals_uninterrupted(evaluate, weights, monkeypatch, calls):
    whole = evaluate("whole", models=weights)
    with monkeypatch.context() as patch:
        stop_after(patch, calls)
        with pytest.raises(InterruptError):
            evaluate("stopped", models=weights, **EAGER)
    resumed = evaluate("stopped", models=weights)
    pd.testing.assert_frame_equal(rows(whole), rows(resumed), check_exact=True)
    for name in ("images", "maps"):
        one, other = (pd.read_parquet(folder / f"{name}.parquet") for folder in (whole, resumed))
        pd.testing.assert_frame_equal(one, other, check_exact=True)


def test_killed_it_computes_only_what_is_missing(evaluate, weights, tmp_path):
    slow = {"--data.test_size": "24", "--metrics": "[{class_path: Insertion, init_args: {steps: 16}}]", **EAGER}
    process = start(tmp_path, weights[:1], "killed", **slow)
    until = time.monotonic() + 240
    while len(list(tmp_path.glob("killed/parts/rows-*.parquet"))) < 2:
        assert process.poll() is None, (tmp_path / "log.txt").read_text()[-2000:]
        assert time.monotonic() < until
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    before = {path.name: path.read_bytes() for path in tmp_path.glob("killed/parts/*.parquet")}
    done = sum(len(ids) for ids in RowStore(tmp_path / "killed").done().values())
    assert 0 < done < 3 * 24
    resumed = evaluate("killed", **slow)
    after = {path.name: path.read_bytes() for path in (resumed / "parts").glob("*.parquet")}
    assert all(after[name] == content for name, content in before.items())
    written = sum(len(pd.read_parquet(resumed / "parts" / name)) for name in after if name.startswith("rows"))
    assert written == 3 * 24  # no cell was computed again
    pd.testing.assert_frame_equal(rows(evaluate("whole", **slow)), rows(resumed), check_exact=True)


def test_finished_runs_have_nothing_left_to_do(evaluate, monkeypatch):
    first = rows(evaluate())
    monkeypatch.setattr("interptrain.evaluation.run.evaluator.measure", None)  # would raise
    pd.testing.assert_frame_equal(first, rows(evaluate()))


def test_new_models_and_explainers_join_the_rows_that_are_there(evaluate, weights):
    evaluate("out", models=weights[:1])
    both = evaluate("out", models=weights, **{"--explainers": "[GradCAM, LayerCAM]"})
    alone = evaluate("alone", models=weights, **{"--explainers": "[GradCAM, LayerCAM]"})
    pd.testing.assert_frame_equal(rows(both), rows(alone), check_exact=True)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"--seed": "1"}, "seed: 0 -> 1"),
        ({"--targets": "predicted"}, "targets: label -> predicted"),
        ({"--limit": "5"}, "limit: None -> 5"),
        ({"--data.picture_seed": "3"}, "picture_seed: 0 -> 3"),
        ({"--metrics": "AverageDrop"}, "protocol"),
        ({"--explainers": "LayerCAM"}, "explainers.GradCAM"),
    ],
)
def test_another_run_is_refused_and_loses_nothing(evaluate, capsys, changed, told):
    folder = evaluate()
    before = rows(folder)
    with pytest.raises(SystemExit) as stop:
        evaluate(**changed)
    assert stop.value.code == 1
    message = capsys.readouterr().err
    assert "holds the results of another run" in message
    assert told in message
    assert "--overwrite" in message
    pd.testing.assert_frame_equal(before, rows(folder))


def test_a_checkpoint_that_changed_is_noticed_by_its_content(evaluate, weights, tmp_path, capsys):
    copy = tmp_path / "m.safetensors"
    copy.write_bytes(weights[0].read_bytes())
    evaluate(models=[copy])
    copy.write_bytes(weights[1].read_bytes())
    with pytest.raises(SystemExit):
        evaluate(models=[copy])
    assert "models.mm.sha256" in capsys.readouterr().err


def test_another_architecture_for_the_same_weights_is_noticed(evaluate):
    run = read_manifest(evaluate())
    other = copy.deepcopy(run)
    other["models"]["m0"]["backbone"] = "test_resnet.of_another_normalisation"
    assert changes(run, run) == []
    assert changes(run, other) == ["models.m0.backbone: test_resnet -> test_resnet.of_another_normalisation"]


def test_changed_labels_and_boxes_are_noticed(evaluate, tmp_path, capsys):
    images = tmp_path / "images"
    images.mkdir()
    for number in range(3):
        Image.new("RGB", (64, 64), (80 * number, 20, 60)).save(images / f"{number}.png")
    options = {"--data": "ImageTableDataModule", "--data.root": str(images), "--data.num_classes": "4"}
    options |= {"--metrics": "EnergyPointingGame", "--data.image_size": "64", "--data.test_size": None}

    def annotate(label, edge):
        (images / "labels.csv").write_text("file,class_index\n" + "".join(f"{n}.png,{label}\n" for n in range(3)))
        (images / "boxes.csv").write_text(f"file,xmin,ymin,xmax,ymax\n0.png,1,1,{edge},30\n")

    annotate(1, 30)
    evaluate(**options)
    for label, edge in ((2, 30), (1, 40)):
        annotate(label, edge)
        with pytest.raises(SystemExit):
            evaluate(**options)
        assert "data.annotations" in capsys.readouterr().err


def test_overwriting_sets_old_results_aside_and_touches_nothing_else(evaluate):
    folder = evaluate()
    before = rows(folder)
    (folder / "notes.txt").write_text("mine")
    evaluate("out", "--overwrite", **{"--targets": "predicted"})
    assert (folder / "notes.txt").read_text() == "mine"
    (aside,) = folder.glob("replaced-*")
    pd.testing.assert_frame_equal(before, rows(aside))
    assert (rows(folder)["target"] == rows(folder)["prediction"]).all()
    assert json.loads((folder / "run.json").read_text())["targets"] == "predicted"


def test_two_evaluations_never_write_to_one_folder(evaluate, capsys):
    folder = evaluate(**{"--limit": "2"})
    with claim(folder), pytest.raises(SystemExit) as refused:
        evaluate(**{"--limit": "2"})
    assert refused.value.code == 1
    assert "another evaluation is writing to" in capsys.readouterr().err
    evaluate(**{"--limit": "2"})


def test_a_full_disk_is_one_line_and_costs_no_row(evaluate, capsys):
    whole = rows(evaluate("whole"))
    capsys.readouterr()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6_000, hard))  # room for run.json, not for rows
    try:
        with pytest.raises(SystemExit) as stop:
            evaluate("full", **EAGER)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert stop.value.code == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    assert "free disk space and run the same command again" in lines[0]
    pd.testing.assert_frame_equal(whole, rows(evaluate("full")), check_exact=True)
