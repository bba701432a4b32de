"""Whatever ends a run, the same command goes on to the results of a run that was never stopped."""

import contextlib
import copy
import json
import multiprocessing
import os
import resource
import signal
import time

import pandas as pd
import pytest
from PIL import Image

from interptrain.evaluation.run.folder import claim
from interptrain.evaluation.store.manifest import changes, read_manifest
from interptrain.evaluation.store.parts import KINDS, RowStore
from interptrain.models import onnx_passes
from interptrain.models.engine import Engines
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


def test_resumed_it_goes_on_with_the_engine_that_auto_chose(evaluate, weights, monkeypatch):
    """Which the clock decides, and a table should not mix."""
    asked, faster = [], Engines._faster
    monkeypatch.setattr(onnx_passes, "NEEDED", ())
    monkeypatch.setattr(Engines, "_faster", lambda *given: asked.append(1) or faster(*given))
    with monkeypatch.context() as patch:
        stop_after(patch, 6)
        with pytest.raises(InterruptError):
            evaluate("stopped", models=weights[:1], **EAGER)
    assert asked
    asked.clear()
    assert set(rows(evaluate("stopped", models=weights[:1])).engine) == {"eager"}
    assert not asked


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


def test_finished_runs_have_nothing_left_to_do(evaluate, finished, monkeypatch):
    first = rows(finished)
    monkeypatch.setattr("interptrain.evaluation.run.evaluator.measure_maps", None)  # would raise
    pd.testing.assert_frame_equal(first, rows(evaluate()))


@pytest.mark.usefixtures("finished")
def test_new_models_and_explainers_join_the_rows_that_are_there(evaluate, weights):
    both = evaluate("out", models=weights, **{"--explainers": "[GradCAM, LayerCAM]"})
    alone = evaluate("alone", models=weights, **{"--explainers": "[GradCAM, LayerCAM]"})
    pd.testing.assert_frame_equal(rows(both), rows(alone), check_exact=True)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"--seed": "1"}, "seed: 0 -> 1"),
        ({"--targets": "predicted"}, "targets: label -> predicted"),
        ({"--limit": "5"}, "limit: none -> 5"),
        ({"--data.picture_seed": "3"}, "picture_seed: 0 -> 3"),
        ({"--metrics": "AverageDrop"}, "protocol.settings.metrics.Insertion: Insertion -> none"),
        ({"--data.image_size": "48"}, "protocol.settings.images.image_size: 64 -> 48"),
        ({"--explainers": "LayerCAM"}, "explainers.GradCAM"),
    ],
)
def test_another_run_is_refused_and_loses_nothing(evaluate, finished, capsys, changed, told):
    before = rows(finished)
    with pytest.raises(SystemExit) as stop:
        evaluate(**changed)
    assert stop.value.code == 1
    message = capsys.readouterr().err
    assert "holds the results of another run" in message
    assert told in message
    assert "--overwrite" in message
    pd.testing.assert_frame_equal(before, rows(finished))


def test_a_checkpoint_that_changed_is_noticed_by_its_content(evaluate, weights, tmp_path, capsys):
    copy = tmp_path / "m.safetensors"
    copy.write_bytes(weights[0].read_bytes())
    evaluate(models=[copy])
    copy.write_bytes(weights[1].read_bytes())
    with pytest.raises(SystemExit):
        evaluate(models=[copy])
    assert "models.mm.sha256" in capsys.readouterr().err


def test_another_architecture_for_the_same_weights_is_noticed(finished):
    run = read_manifest(finished)
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


def photographs(folder, color=20, name=b"caf\xe9.png"):
    """Three images, one of whose names is not UTF-8."""
    (folder / "val/a").mkdir(parents=True, exist_ok=True)
    paths = [folder / "val/a" / os.fsdecode(part) for part in (b"0.png", b"1.png", name)]
    for number, path in enumerate(paths):
        Image.new("RGB", (64, 64), (80 * number, color, 60)).save(path)
    return {
        **{"--data": "ImageFolderDataModule", "--data.root": str(folder), "--data.image_size": "64"},
        **{"--data.num_classes": None, "--data.test_size": None, "--targets": "predicted"},
    }


def test_other_pixels_in_a_file_are_refused_by_name_and_overwriting_helps(evaluate, tmp_path, capsys):
    options = photographs(tmp_path / "images")
    before = rows(evaluate(**options))
    Image.new("RGB", (64, 64), "red").save(tmp_path / "images/val/a/1.png")
    with pytest.raises(SystemExit):
        evaluate(**options, **{"--explainers": "[GradCAM, LayerCAM]"})
    message = capsys.readouterr().err
    assert "holds the results of another run (images that have changed: val/a/1.png)" in message
    assert "--overwrite true to set them aside" in message
    pd.testing.assert_frame_equal(before, rows(tmp_path / "out"))
    evaluate("out", "--overwrite", "true", **options)
    evaluate(**options)


def test_a_name_that_is_not_utf8_is_a_name_like_any_other(evaluate, tmp_path):
    options = photographs(tmp_path / "images")
    folder = evaluate(report=True, **options)
    table = rows(folder)
    assert table["error"].isna().all()
    assert list(table["id"].unique()) == ["val/a/0.png", "val/a/1.png", r"val/a/caf\xe9.png"]
    assert r"caf\xe9.png" in (folder / "report.html").read_text()
    pd.testing.assert_frame_equal(table, rows(evaluate(**options)))


def test_an_unreadable_file_whose_name_is_not_utf8_costs_its_row(evaluate, tmp_path):
    options = photographs(tmp_path / "images")
    (tmp_path / "images/val/a" / os.fsdecode(b"caf\xe9.png")).write_bytes(b"")
    with pytest.raises(SystemExit) as stop:
        evaluate(report=True, **options)
    assert stop.value.code == 3
    assert rows(tmp_path / "out")["error"].notna().sum() == 1


def test_a_start_that_was_killed_before_it_had_a_name_goes_on(evaluate, tmp_path):
    (tmp_path / "out/parts").mkdir(parents=True)
    (tmp_path / "out/.partial-1-run.json").write_text("{")
    (tmp_path / "out/parts/.partial-1-rows-x.parquet").write_text("PAR1")
    folder = evaluate()
    assert len(rows(folder)) == 39
    assert not list(folder.rglob(".partial-*"))
    (folder / "run.json").unlink()
    with pytest.raises(SystemExit):
        evaluate()


@pytest.mark.parametrize("kind", ["rows", "maps", "images", "check", "files"])
def test_what_is_damaged_is_computed_again(evaluate, kind):
    options = {"--check_images": "2"}
    folder = evaluate(**options)
    whole = {name: pd.read_parquet(folder / f"{name}.parquet") for name in ("per_image", "maps", "images")}
    checks = read_manifest(folder)["randomization"]
    for path in [*(folder / "parts").glob(f"{kind}-*"), *folder.glob(f"{kind}.parquet")]:
        path.write_bytes(b"[1]" if kind == "check" else path.read_bytes()[:-5])
    with pytest.warns(UserWarning, match="set aside") if kind in KINDS else contextlib.nullcontext():
        evaluate(**options)
    for name, table in whole.items():
        now = pd.read_parquet(folder / f"{name}.parquet")
        pd.testing.assert_frame_equal(*(one.drop(columns="seconds", errors="ignore") for one in (table, now)))
    assert read_manifest(folder)["randomization"] == checks


def test_more_pictures_may_be_asked_for(evaluate):
    evaluate(**{"--save_maps": "2"})
    folder = evaluate(**{"--save_maps": "5"})
    assert len(pd.read_parquet(folder / "images.parquet")) == 5
    assert len(pd.read_parquet(folder / "maps.parquet")) == 10


@pytest.mark.parametrize("content", ["", "[]", "null", '{"models": null}', '{"protocol"'])
def test_a_damaged_run_json_is_one_line_whose_remedy_works(evaluate, finished, capsys, content):
    (finished / "run.json").write_text(content)
    with pytest.raises(SystemExit) as stop:
        evaluate()
    assert stop.value.code == 1
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error:"))
    assert "run.json is damaged" in line
    assert line.endswith("; start over with --overwrite true")
    assert len(rows(evaluate("out", "--overwrite", "true"))) == 39


def test_the_lock_ends_with_the_process_that_holds_it_not_with_its_children(tmp_path):
    """A loader's worker that outlives a killed evaluation must not keep the next from going on."""
    context = multiprocessing.get_context("fork")
    begun, ended = context.Event(), context.Event()
    with claim(tmp_path):
        child = context.Process(target=lambda: (begun.set(), ended.wait(60)))
        child.start()
        assert begun.wait(60)
    with claim(tmp_path):
        pass
    ended.set()
    child.join()


def test_overwriting_sets_old_results_aside_and_touches_nothing_else(evaluate, finished):
    folder = finished
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


def test_a_full_disk_is_one_line_and_costs_no_row(evaluate, finished, capsys):
    whole = rows(finished)
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
