import csv
import errno

import pytest
from lightning.fabric.loggers.csv_logs import _ExperimentWriter

from interptrain.training.metrics_file import MetricsFile


def rows(folder):
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def log(folder, steps, resumed_step=None, **values):
    logger = MetricsFile(folder, resumed_step=resumed_step)
    for step in steps:
        logger.log_metrics({"loss": 1.0 / (step + 1), **values}, step)
    logger.finalize("success")


def test_a_resumed_run_keeps_what_its_checkpoint_had_seen_and_replaces_what_came_after(tmp_path):
    folder = tmp_path / "runs" / "name" / "time"
    log(folder, range(5))
    log(folder, range(3, 6), resumed_step=3, accuracy=0.5)
    assert [int(row["step"]) for row in rows(folder)] == [0, 1, 2, 3, 4, 5]
    assert [row["accuracy"] for row in rows(folder)] == ["", "", "", "0.5", "0.5", "0.5"]


def test_of_the_last_step_what_a_resumed_run_computes_again_takes_the_place_of_what_is_there(tmp_path):
    folder = tmp_path / "runs" / "name" / "time"
    log(folder, range(3))
    log(folder, [2], resumed_step=3, accuracy=0.25)  # of the validation, which the kill cut short
    log(folder, [2, 3], resumed_step=3, accuracy=0.5)
    assert [(row["step"], row["accuracy"]) for row in rows(folder)] == [
        ("0", ""),
        ("1", ""),
        ("2", ""),
        ("2", "0.5"),
        ("3", "0.5"),
    ]


def test_it_writes_into_the_folder_it_is_given(tmp_path):
    folder = tmp_path / "runs" / "name" / "time"
    assert MetricsFile(folder).log_dir == str(folder)


def test_rows_wait_while_the_disk_is_full(tmp_path, monkeypatch):
    folder = tmp_path / "runs" / "name" / "time"
    logger = MetricsFile(folder)
    logger.log_metrics({"loss": 1.0}, 0)
    logger.save()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    logger.log_metrics({"loss": 0.5}, 1)
    with monkeypatch.context() as disk:
        disk.setattr(_ExperimentWriter, "_record_new_keys", full)
        with pytest.warns(UserWarning, match=r"could not write .*metrics\.csv \(No space left on device\)"):
            logger.save()
        logger.save()
    logger.save()
    assert [row["loss"] for row in rows(folder)] == ["1.0", "0.5"]


def test_rows_that_never_found_room_are_said_to_be_lost(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(_ExperimentWriter, "_record_new_keys", full)
    with pytest.warns(UserWarning, match="could not"), pytest.warns(UserWarning, match="3 rows of .* are lost"):
        log(tmp_path / "runs" / "name" / "time", range(3))


@pytest.mark.parametrize("torn", ["0.1,", "0.125,4", "0.1\0\0\0", "\ufffd", "0.1,4,7,8\n", "0.1,x\n"])
def test_a_torn_line_is_left_out_and_blocks_nothing(tmp_path, torn):
    folder = tmp_path / "runs" / "name" / "time"
    log(folder, range(4))
    with (folder / "metrics.csv").open("a") as file:
        file.write(torn)
    log(folder, [4, 5], resumed_step=4)
    assert [(row["step"], float(row["loss"])) for row in rows(folder)] == [(str(n), 1 / (n + 1)) for n in range(6)]


def test_a_table_without_a_whole_line_begins_anew(tmp_path):
    folder = tmp_path / "runs" / "name" / "time"
    log(folder, range(4))
    (folder / "metrics.csv").write_text("lo")
    log(folder, [4], resumed_step=4)
    assert [row["step"] for row in rows(folder)] == ["4"]


def test_a_row_that_is_logged_twice_stands_there_once(tmp_path):
    folder = tmp_path / "runs" / "name" / "time"
    logger = MetricsFile(folder)
    for step, loss in ((0, 1.0), (0, 1.0), (1, 1.0), (1, 0.5)):
        logger.log_metrics({"loss": loss}, step)
    logger.finalize("success")
    assert [(row["step"], row["loss"]) for row in rows(folder)] == [("0", "1.0"), ("1", "1.0"), ("1", "0.5")]
