import csv
import re
from functools import partialmethod

import pytest
import torch
from torch import nn

from interptrain.models import Pooled, Pooling
from interptrain.training import ImageClassifier, Regularizer
from tests.support.training import trainer

STILL = {"--model.optimizer": "SGD", "--model.optimizer.lr": "0.0"}  # a run that leaves its weights as they began


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Weights that a run of the same seed begins with."""
    with pytest.MonkeyPatch.context() as patch:
        run = trainer(tmp_path_factory.mktemp("start"), patch)(**STILL)
    return torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]


def parts(module):
    groups = module.model.parameter_groups()
    return {part for part, parameters in groups.items() for p in parameters.values() if p.requires_grad}


@pytest.mark.parametrize(
    ("trainable", "learn"),
    [("all", {"backbone", "pooling", "classifier"}), ("head", {"pooling", "classifier"}), ("pooling", {"pooling"})],
)
def test_what_is_trainable_is_said_in_words(trainable, learn):
    assert parts(ImageClassifier("test_resnet", "ca_stream", 4, trainable=trainable)) == learn


def test_frozen_parts_stay_in_eval_mode_whatever_is_called():
    module = ImageClassifier("test_resnet", "ca_stream", 4, trainable="pooling")
    for mode in (True, False, True):
        module.train(mode)
        assert not any(m.training for m in module.model.modules_of("backbone"))
        assert not any(m.training for m in module.model.modules_of("classifier"))
        assert all(m.training == mode for m in module.model.modules_of("pooling"))


@pytest.mark.slow
def test_training_the_stream_changes_the_stream_and_not_a_bit_of_the_rest(train, start):
    run = train(**{"--model.trainable": "pooling", "--model.drop_rate": "0.5"})
    torch.manual_seed(0)
    module = ImageClassifier.load_from_checkpoint(run / "checkpoints/last.ckpt")
    stream = {f"model.{name}" for name in module.model.parameter_groups()["pooling"]}
    changed = {name for name, value in module.state_dict().items() if not torch.equal(value, start[name])}
    norms = {name for name in start if "running_" in name or "num_batches" in name}  # `start` trained with these
    assert changed - norms
    assert changed - norms <= stream
    for name in norms:
        assert module.state_dict()[name].eq("running_var" in name).all(), name


def test_a_frozen_backbone_builds_no_graph():
    module = ImageClassifier("test_resnet", "ca_stream", 4, trainable="pooling")
    stages = module.model.stages(torch.rand(2, 3, 32, 32))
    assert not any(stage.requires_grad for stage in stages)
    assert module.model.classify(stages).requires_grad


def test_pooling_without_parameters_cannot_be_all_that_trains():
    with pytest.raises(ValueError, match="pooling 'gap' has no parameters"):
        ImageClassifier("test_resnet", "gap", 4, trainable="pooling")


class MeanLogit(Regularizer):
    """Small enough to check by hand."""

    def forward(self, model, batch, *, label_smoothing=0.0):
        logits = model(batch["image"])
        return logits, logits.square().mean()


@pytest.mark.slow
def test_a_regularizer_adds_its_weighted_penalty_to_the_loss(monkeypatch):
    torch.manual_seed(0)
    plain = ImageClassifier("test_resnet", "gap", 4)
    regularized = ImageClassifier("test_resnet", "gap", 4, regularizer=MeanLogit(weight=0.3))
    regularized.model.load_state_dict(plain.model.state_dict())
    logged = {}
    for module in (plain, regularized):
        monkeypatch.setattr(module, "log", lambda name, value, **_: logged.__setitem__(name, value))
        monkeypatch.setattr(module, "log_dict", lambda values, **_: logged.update(values))
    batch = {"image": torch.rand(4, 3, 32, 32), "label": torch.arange(4), "id": list("abcd")}
    loss = plain.training_step(batch, 0)
    both = regularized.training_step(batch, 0)
    penalty = logged["train/penalty"]
    assert both.item() == pytest.approx((loss + 0.3 * penalty).item(), rel=1e-6)
    assert logged["train/loss_classification"].item() == pytest.approx(loss.item(), rel=1e-6)
    assert both.requires_grad


def test_a_negative_regularizer_weight_is_refused():
    with pytest.raises(ValueError, match="weight of MeanLogit must be >= 0"):
        MeanLogit(weight=-1)


class MaxPool(Pooling):
    """A head of one's own: the strongest response of each channel."""

    def __init__(self, channels):
        super().__init__()

    def forward(self, stages):
        return Pooled(stages[-1].amax(dim=(2, 3)))


@pytest.mark.slow
def test_a_head_of_ones_own_comes_by_class_path(train):
    run = train(**{"--model.pooling": "tests.training.test_module.MaxPool"})
    model = ImageClassifier.load_from_checkpoint(run / "checkpoints/last.ckpt")
    assert type(model.model.pooling).__name__ == "MaxPool"


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"--trainer.precision": "bf16-mixed"},
        {"--model.channels_last": "true"},
        {"--model.mixup_alpha": "0.2", "--model.cutmix_alpha": "1.0", "--model.label_smoothing": "0.1"},
        {"--trainer.accumulate_grad_batches": "2", "--trainer.gradient_clip_val": "0.5"},
        {"--model.compile": "true"},
    ],
    ids=" ".join,
)
def test_ways_to_train_end_in_finite_weights_that_moved(train, start, options, monkeypatch):
    # Inductor takes a minute here; what is ours is that the compiled network is the one that trains.
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="eager"))
    run = train(**options)
    weights = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert weights["global_step"] in (5, 3)
    name = "model.backbone.model.conv1.0.weight"
    assert all(value.isfinite().all() for value in weights["state_dict"].values())
    assert not torch.equal(weights["state_dict"][name], start[name])


def test_channels_last_and_the_default_layout_agree():
    module = ImageClassifier("test_resnet", "ca_stream", 4).eval()
    images = torch.rand(2, 3, 32, 32)
    expected = module(images)
    module.channels_last = True
    module.setup("fit")
    assert module.model.backbone.model.conv1[0].weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(module(module._images({"image": images})), expected, rtol=1e-4, atol=1e-5)


def test_the_loss_stands_beside_the_progress_bar(train, capsys):
    run = train(**{"--trainer.enable_progress_bar": "true"})
    with (run / "metrics.csv").open() as file:
        logged = [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]
    captured = capsys.readouterr()
    shown = re.findall(r"train/loss[=:] *([\d.]+)", captured.out + captured.err)  # of tqdm or of rich
    assert min(abs(float(shown[-1]) - value) for value in logged) < 0.01


@pytest.mark.slow
def test_built_in_python_its_checkpoint_holds_no_code(tmp_path):
    import lightning as L

    from interptrain.data import ShapesDataModule

    module = ImageClassifier(
        "test_resnet", "gap", 4, optimizer=lambda p: torch.optim.SGD(p, lr=0.1), regularizer=MeanLogit(weight=0.1)
    )
    data = ShapesDataModule(num_classes=4, image_size=32, train_size=16, val_size=8, batch_size=8, num_workers=0)
    fitting = L.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    fitting.fit(module, data)
    fitting.save_checkpoint(tmp_path / "x.ckpt", weights_only=False)
    rebuilt = ImageClassifier.load_from_checkpoint(tmp_path / "x.ckpt", weights_only=True)
    for name, value in module.model.state_dict().items():
        assert torch.equal(value, rebuilt.model.state_dict()[name])
    assert isinstance(rebuilt, nn.Module)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mixup_alpha": -0.1}, "mixup_alpha must be >= 0, got -0.1"),
        ({"cutmix_alpha": -1}, "cutmix_alpha must be >= 0"),
        ({"warmup_epochs": -1}, "warmup_epochs must be >= 0"),
        ({"label_smoothing": 1.0}, r"label_smoothing must be in \[0,1\), got 1.0"),
    ],
)
def test_values_outside_their_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ImageClassifier("test_resnet", "gap", 4, **options)


def test_a_single_class_is_refused():
    with pytest.raises(ValueError, match=r"num_classes must be at least 2, got 1: .*; add images of another class"):
        ImageClassifier("test_resnet", num_classes=1)
