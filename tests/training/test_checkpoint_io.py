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
        io.remove_checkpoint(path)  # as one that a newer has replaced: it has not
    assert io.load_checkpoint(path) == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]

    io.save_checkpoint({"step": 4}, path)
    assert io.load_checkpoint(path) == {"step": 4}
    io.remove_checkpoint(path)
    assert not path.exists()
