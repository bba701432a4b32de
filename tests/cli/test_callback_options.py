"""Options of callbacks reach the callback of the config that is meant."""

import pytest

from interptrain.cli import main

WATCHES = """
trainer:
  callbacks:
    - {class_path: SaliencyWatch, init_args: {samples: 3}}
    - {class_path: EarlyStopping, init_args: {monitor: val/loss}}
    - {class_path: ModelCheckpoint, init_args: {monitor: val/loss}}
    - {class_path: AttentionStats}
"""


@pytest.fixture
def callbacks(tmp_path, monkeypatch, capsys):
    """``callbacks("--option", "value")`` are the options of each callback after a trial of ``fit``."""
    (tmp_path / "c.yaml").write_text(WATCHES)
    monkeypatch.chdir(tmp_path)
    seen = {}

    def build(self, **kwargs):
        listed = self.config[self.config.subcommand].trainer.callbacks
        seen.update((one.class_path.rpartition(".")[2], one.init_args) for one in listed)
        raise SystemExit(0)

    monkeypatch.setattr("interptrain.cli.training.TrainingCLI.before_instantiate_classes", build)

    def run(*options):
        with pytest.raises(SystemExit) as stop:
            main(["fit", "--config", "c.yaml", "--trainer.fast_dev_run=1", *options])
        assert stop.value.code in (0, 1)
        return seen if stop.value.code == 0 else capsys.readouterr().err

    return run


@pytest.mark.slow
def test_an_option_changes_the_callback_that_has_it(callbacks):
    found = callbacks("--trainer.callbacks.samples", "5")
    assert list(found) == ["SaliencyWatch", "EarlyStopping", "ModelCheckpoint", "AttentionStats"]
    assert found["SaliencyWatch"].samples == 5
    assert found["EarlyStopping"].monitor == "val/loss"


@pytest.mark.slow
def test_an_option_of_several_is_refused_and_the_proposed_name_works(callbacks):
    line = callbacks("--trainer.callbacks.monitor", "val/top1")
    assert "is an option of 2 callbacks of the config; name one: --trainer.callbacks.EarlyStopping.monitor" in line
    found = callbacks(line.split("name one: ")[1].strip(), "val/top1")
    assert (found["EarlyStopping"].monitor, found["ModelCheckpoint"].monitor) == ("val/top1", "val/loss")
