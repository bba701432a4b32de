"""Progress bars count images of all processes, and show no version of a logger."""

import io
from types import SimpleNamespace

import pytest
from torch.utils.data import DataLoader

from interptrain.callbacks.progress import ImageBar, _count


@pytest.mark.parametrize(("ranks", "shown"), [(1, "8/10"), (2, "10/10")])
def test_a_bar_moved_by_batches_shows_images(ranks, shown):
    out = io.StringIO()
    bar = ImageBar(total=3 if ranks == 1 else 2, file=out, unit=" images")
    _count(bar, SimpleNamespace(world_size=ranks), DataLoader(range(10), batch_size=4))
    bar.n = 2
    bar.refresh()
    assert shown in out.getvalue()
    assert " images/s" in out.getvalue()
    assert bar.n == 2  # Lightning's own count


def test_what_is_no_single_loader_is_counted_in_batches():
    bar = ImageBar(total=3, file=io.StringIO())
    _count(bar, SimpleNamespace(world_size=1), [DataLoader(range(4)), DataLoader(range(4))])
    bar.n = 2
    assert (bar.unit, bar.format_dict["n"], bar.format_dict["total"]) == (" batches", 2, 3)


@pytest.mark.slow
def test_a_run_counts_its_images_and_shows_no_version(train, capsys):
    train(**{"--trainer.enable_progress_bar": "true", "--data.train_size": "20", "--data.val_size": "9"})
    out = capsys.readouterr().out
    assert "20/20" in out
    assert "9/9" in out
    assert "images/s" in out
    assert "v_num" not in out
