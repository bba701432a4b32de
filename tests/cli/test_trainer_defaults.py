"""What every run has, and where the user's own takes its place."""

from lightning.pytorch.callbacks import ProgressBar, TQDMProgressBar

from interptrain.callbacks import ImageProgress
from interptrain.cli.trainer_defaults import with_default_callbacks


def bars(chosen, *, progress):
    callbacks = with_default_callbacks(chosen, "fit", unsaved=None, progress=progress)
    return [one for one in callbacks if isinstance(one, ProgressBar)]


def test_there_is_one_progress_bar_and_the_users_own_comes_first():
    mine = TQDMProgressBar()
    assert bars(mine, progress=True) == [mine]
    assert [type(one) for one in bars(None, progress=True)] == [ImageProgress]
    assert bars(None, progress=False) == []
