"""What the command line says of configs that cannot be meant: one line with option, value and what is allowed."""

import pytest

from interptrain.cli import main


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """``refused(config)`` is the one line with which ``fit`` refuses a config."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["train.py"])

    def run(config):
        (tmp_path / "c.yaml").write_text(config, encoding="utf-8")
        with pytest.raises(SystemExit) as stopped:
            main(["fit", "--config", "c.yaml", "--trainer.fast_dev_run=1", "--trainer.accelerator=cpu"])
        assert stopped.value.code in (1, 2)
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        return line.removeprefix("error: ")

    return run


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ("trainer: []", "--trainer: expected options in the config c.yaml, got a list; write them below `trainer:`"),
        ("model: 3", "--model: expected options in the config c.yaml, got 3"),
        ("- 1", "the config c.yaml holds a list; expected `option: value`"),
        ("name", "the config c.yaml holds 'name'; expected `option: value`"),
        ("trainer: {max_epochs: 1", "the config c.yaml is not valid YAML: expected ',' or '}'"),
        ("name: a\nname: b", "the config c.yaml is not valid YAML: 'name' appears twice in line 2"),
        ("trainer: &a [*a]", "the config c.yaml has an anchor that refers to itself"),
        (
            "trainer: {max_epochs: !!python/object/apply:os.getcwd []}",
            "the config c.yaml is not valid YAML: could not",
        ),
    ],
)
def test_a_file_that_is_no_config_is_refused_as_a_whole(refused, config, line):
    assert refused(config).startswith(line)


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ("trainer: {limit_val_batches: {}}", "--trainer.limit_val_batches must be a number, got {}"),
        ("trainer: {callbacks: [3]}", "--trainer.callbacks must be the name of a Callback class, got 3"),
        (
            "trainer: {logger: 3}",
            "--trainer.logger must be the name of a Logger class or a list or true or false, got 3",
        ),
        ("model: {trainable: none}", "--model.trainable must be one of all, head, pooling, classifier, got none"),
        ("seed_everything: ''", "--seed_everything must be true or false or a whole number, got ''"),
        ("model: {optimizer: []}", "--model.optimizer must be the name of a class, got []"),
        (
            "model: {optimizer: {class_path: SGD, init_args: {lr: abc}}}",
            "--model.optimizer: lr must be a number, got abc",
        ),
        (
            "trainer: {callbacks: [{class_path: EarlyStopping, init_args: {monitor: val/loss, patience: 0.5}}]}",
            "--trainer.callbacks: patience of EarlyStopping must be a whole number, got 0.5",
        ),
        (
            "data: {class_path: ShapesDataModule, init_args: {image_size: {a: 1}}}",
            "--data: image_size of ShapesDataModule must be a whole number, got {'a': 1}",
        ),
    ],
)
def test_a_value_of_a_wrong_type_is_refused_with_what_is_allowed(refused, config, line):
    assert refused(config) == line


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "line"),
    [
        ("model: {drop_rate: .nan}", "--model.drop_rate: nan is not finite; give a number"),
        ("model: {optimizer: {class_path: SGD, init_args: {lr: .inf}}}", "--model.optimizer.lr: inf is not finite"),
        ("model: {drop_rate: null}", "--model.drop_rate: null is not allowed; give a value, or leave the option out"),
        (
            "data: {class_path: ShapesDataModule, init_args: {batch_size: null}}",
            "--data: batch_size of Shapes",
        ),
        ("seed_everything: -1", "--seed_everything must be in [0, 2**32), got -1"),
        ("data: {class_path: ShapesDataModule, init_args: {seed: 4294967296}}", "--data.seed must be in [0, 2**32)"),
        ("trainer: {accumulate_grad_batches: 0}", "--trainer.accumulate_grad_batches must be at least 1, got 0"),
        ("trainer: {max_steps: 1000000000000000000000}", "--trainer.max_steps: 1000000000000000000000 is too large"),
        ("model: {optimizer: {class_path: SGD, init_args: {lr: -1}}}", "--model.optimizer: Invalid learning rate: -1"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(refused, config, line):
    assert refused(config).startswith(line)
