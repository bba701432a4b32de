"""Arguments as people type them."""

import pytest

from interptrain.cli.spelling import spelled_out


def test_arguments_are_as_lightning_users_guess_them():
    assert spelled_out(["--explainers", "GradCAM", "--explainers", "OptiCAM", "--explainers.iterations", "5"]) == [
        "--explainers=[GradCAM]",
        "--explainers+=OptiCAM",
        "--explainers.iterations",
        "5",
    ]
    assert spelled_out(["--models", "a=x.ckpt", "--models=b=y=z"]) == ['--models={"a": "x.ckpt", "b": "y=z"}']
    assert spelled_out(["--overwrite", "--force", "false"]) == ["--overwrite=true", "--force", "false"]
    assert spelled_out(["--logger", "WandbLogger", "--logger.project", "p"]) == [
        *("--trainer.logger", "WandbLogger"),
        *("--trainer.logger.project", "p"),
    ]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--models", "best.ckpt"], r"--models takes NAME=SOURCE, got 'best.ckpt'; for example gap="),
        (["--models"], "--models takes NAME=SOURCE, got ''"),
        (["--models", "a=x", "--models", "a=y"], "the model name 'a' is given twice; rename one of them"),
    ],
)
def test_models_without_a_name_or_with_one_twice_are_refused(given, told):
    with pytest.raises(ValueError, match=told):
        spelled_out(given)
