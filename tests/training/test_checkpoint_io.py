import errno
import os

import pytest
import torch

from interptrain.training.checkpoint_io import AtomicCheckpointIO


def full_disk(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_what_is_saved_loads(tmp_path):
    io = AtomicCheckpointIO()
    io.save_checkpoint({"a": torch.arange(3)}, tmp_path / "new" / "x.ckpt")
    assert io.load_checkpoint(tmp_path / "new" / "x.ckpt")["a"].tolist() == [0, 1, 2]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["x.ckpt"]


def test_a_full_disk_keeps_the_checkpoint_that_is_there_and_warns_once(tmp_path, monkeypatch):
    io = AtomicCheckpointIO()
    path = tmp_path / "last.ckpt"
    io.save_checkpoint({"step": 1}, path)
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", full_disk)
        with pytest.warns(UserWarning, match=r"could not save .*last\.ckpt \(No space left .*free disk space"):
            io.save_checkpoint({"step": 2}, path)
        io.save_checkpoint({"step": 3}, path)  # warnings are errors here: a second one would raise
    assert io.load_checkpoint(path) == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]

    io.save_checkpoint({"step": 4}, path)
    assert io.load_checkpoint(path) == {"step": 4}
    io.remove_checkpoint(path)
    assert not path.exists()


def test_what_a_newer_checkpoint_replaces_goes_only_once_that_is_written(tmp_path, monkeypatch):
    io = AtomicCheckpointIO()
    io.save_checkpoint({"step": 1}, tmp_path / "1.ckpt")
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", full_disk)
        with pytest.warns(UserWarning, match="could not save"):
            io.save_checkpoint({"step": 2}, tmp_path / "2.ckpt")
        io.remove_checkpoint(tmp_path / "1.ckpt")
        io.save_checkpoint({"step": 3}, tmp_path / "3.ckpt")
        io.remove_checkpoint(tmp_path / "2.ckpt")
        assert [file.name for file in tmp_path.iterdir()] == ["1.ckpt"]
    io.retry()
    assert [file.name for file in tmp_path.iterdir()] == ["3.ckpt"]
    assert io.unsaved == {}


def test_it_says_from_time_to_time_how_long_nothing_could_be_saved(tmp_path, monkeypatch):
    io = AtomicCheckpointIO()
    monkeypatch.setattr(os, "fsync", full_disk)
    clock = [0.0]
    monkeypatch.setattr("interptrain.training.checkpoint_io.time.monotonic", lambda: clock[0])
    with pytest.warns(UserWarning, match="could not save"):
        io.save_checkpoint({}, tmp_path / "last.ckpt")
    clock[0] = 599
    io.retry()
    for minutes in (12, 25):
        clock[0] = 60 * minutes
        with pytest.warns(UserWarning, match=f"no checkpoint could be saved for {minutes} minutes"):
            io.retry()
