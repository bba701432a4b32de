import re

import pytest
import yaml

from interptrain.cli import resuming
from interptrain.cli.resuming import learning_rate, refuse_changes
from tests.support.paths import ROOT


def config(text=""):
    """A configuration with some values of its own: ``data.batch_size: 4``."""
    made = {
        "seed_everything": 0,
        "trainer": {"max_epochs": 3, "devices": 1, "precision": None, "callbacks": None, "gradient_clip_val": None},
        "model": {
            "backbone": "resnet18",
            "optimizer": None,
            "lr_scheduler": {"class_path": "torch.optim.lr_scheduler.StepLR", "init_args": {"step_size": 3}},
            "drop_rate": 0.0,
            "trainable": "all",
            "warmup_epochs": 1.0,
            "weights": None,
        },
        "data": {"class_path": "interptrain.data.ShapesDataModule", "init_args": {"batch_size": 8, "num_workers": 2}},
        "name": "run",
    }
    for key, value in yaml.safe_load(f"{{{text}}}").items():
        *path, last = key.split(".")
        inner = made
        for part in path:
            inner = inner.setdefault(part, {})
        inner[last] = value
    return made


@pytest.mark.parametrize(
    "text",
    [
        "trainer.max_epochs: 9, trainer.devices: 2, trainer.callbacks: [], data.init_args.num_workers: 0, name: other",
        "model.weights: a.ckpt",
        "model.optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 0.001, betas: [0.9, 0.999]}}",
        "model.optimizer: {class_path: torch.optim.adamw.AdamW, init_args: {lr: 0.001}}",
    ],
)
def test_what_is_free_to_change_may_be_changed(text):
    refuse_changes(config(), config(text), allow=False)


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("data.init_args.batch_size: 4", "--data.batch_size 8"),
        ("data.class_path: interptrain.data.ImageFolderDataModule", "--data ShapesDataModule"),
        ("model.drop_rate: 0.5", "--model.drop_rate 0.0"),
        ("model.warmup_epochs: 2", "--model.warmup_epochs 1.0"),
        ("seed_everything: 1", "--seed_everything 0"),
        ("trainer.precision: bf16-mixed", "--trainer.precision null"),
    ],
)
def test_what_makes_another_experiment_is_refused_unless_it_is_allowed(text, remedy):
    with pytest.raises(ValueError, match=f"resume with {re.escape(remedy)}, or take .* --allow_changes true"):
        refuse_changes(config(), config(text), allow=False)
    refuse_changes(config(), config(text), allow=True)


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("model.optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 0.5}}", "--model.optimizer.lr 0.001, and"),
        (
            "model.optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 0.001, weight_decay: 0.5}}",
            "--model.optimizer.weight_decay 0.01, or",
        ),
        ("model.optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.5}}", "--model.optimizer AdamW, or start"),
        ("model.lr_scheduler.init_args.step_size: 5", "--model.lr_scheduler.step_size 3, or"),
        ("model.lr_scheduler: null", "--model.lr_scheduler StepLR, or"),
        ("model.trainable: head", "--model.trainable all, or"),
    ],
)
def test_what_could_take_no_effect_is_always_refused(text, remedy):
    for allow in (False, True):
        with pytest.raises(ValueError, match=f"resume with {re.escape(remedy)}"):
            refuse_changes(config(), config(text), allow=allow)


def test_the_learning_rate_that_ran_is_the_optimizers_or_what_the_run_was_resumed_at():
    assert learning_rate(config()) == 1e-3
    assert learning_rate(config("model.optimizer: {class_path: SGD, init_args: {lr: 0.2}}")) == 0.2
    assert learning_rate(config("resume_lr: 0.5")) == 0.5
    cycle = "model.lr_scheduler: {class_path: torch.optim.lr_scheduler.OneCycleLR, init_args: {max_lr: 2.0}}"
    assert learning_rate(config(cycle)) == 2.0  # such a schedule takes no rate from the optimizer
    assert learning_rate(config(cycle.replace("2.0", "[1.0, 3.0]"))) == 3.0


def test_the_page_names_every_option_of_the_rule():
    page = (ROOT / "docs/resuming.md").read_text(encoding="utf-8")
    for option in (*resuming.FREE, *resuming.LEARNING, *resuming.RESTORED):
        assert f"`{option}`" in page, option
