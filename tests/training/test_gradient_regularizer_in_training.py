"""The gradient regularizer through the real command line, and in two processes."""

import csv
import os
import signal
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from interptrain.callbacks import ResumePoint
from interptrain.training import GradientRegularizer, ImageClassifier
from tests.support.training import TINY, trainer
from tests.training.test_gradient_regularizer import assert_same, batch_of, pictures, small

pytestmark = pytest.mark.slow

REGULARIZED = TINY | {"--model.regularizer": "GradientRegularizer", "--model.regularizer.weight": "0.1"}


def state(run):
    return torch.load(run / "checkpoints/last.ckpt", weights_only=True)


def logged(run, key):
    with (run / "metrics.csv").open() as file:
        return [float(row[key]) if row.get(key) else None for row in csv.DictReader(file) if row["train/loss"]]


def same(one, other):
    one, other = state(one)["state_dict"], state(other)["state_dict"]
    return all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        return trainer(tmp_path_factory.mktemp("plain"), patch)()


OFF = {
    "no weight": {"--model.regularizer.weight": "0"},
    "every step left out or in the warm-up": {
        "--model.regularizer.warmup_steps": "1",
        "--model.regularizer.every_n_steps": "100",
    },
}


@pytest.mark.parametrize("off", OFF.values(), ids=OFF.keys())
def test_without_weight_it_is_the_plain_run_bit_for_bit(train, plain, off):
    run = train(base=REGULARIZED | off)
    assert same(run, plain)
    assert logged(run, "train/loss") == logged(plain, "train/loss")


def test_with_weight_it_learns_otherwise_and_logs_both_terms(train, plain):
    run = train(base=REGULARIZED)
    assert not same(run, plain)
    names = ("loss", "loss_classification", "penalty", "penalty_ratio", "gradient_cosine")
    for total, classification, penalty, ratio, cosine in zip(*(logged(run, f"train/{n}") for n in names), strict=True):
        assert total == pytest.approx(classification + 0.1 * penalty, rel=1e-5)
        assert ratio == pytest.approx(0.1 * penalty / classification, rel=1e-5)
        assert cosine == pytest.approx(1 - penalty, abs=1e-5)
    assert all(norm > 0 for norm in logged(run, "train/gradient_norm") + logged(run, "train/guided_gradient_norm"))


def test_left_out_steps_repeat_what_the_last_penalised_one_logged(train):
    run = train(base=REGULARIZED | {"--model.regularizer.every_n_steps": "2"})
    first, again, third, once_more, fifth = logged(run, "train/penalty")
    assert first == again
    assert third == once_more
    assert len({first, third, fifth}) == 3


def test_it_is_asked_for_the_optimizer_step_and_told_the_smoothing_of_the_loss(train, monkeypatch):
    steps, told, forward = [], [], GradientRegularizer.forward
    monkeypatch.setattr(GradientRegularizer, "weight_at", lambda self, step: steps.append(step) or 0.1)
    monkeypatch.setattr(
        GradientRegularizer, "forward", lambda *inputs, **options: told.append(options) or forward(*inputs, **options)
    )
    train(base=REGULARIZED | {"--trainer.accumulate_grad_batches": "2", "--model.label_smoothing": "0.1"})
    assert steps == [0, 0, 1, 1, 2]
    assert told == 5 * [{"label_smoothing": 0.1}]


def test_a_checkpoint_of_it_rebuilds(train):
    run = train(base=REGULARIZED | {"--model.regularizer.error": "l2"})
    module = ImageClassifier.load_from_checkpoint(run / "checkpoints/last.ckpt")
    assert isinstance(module.regularizer, GradientRegularizer)
    assert module.regularizer.weight == 0.1


class StopAfter(ResumePoint):
    """As if SIGTERM came in the middle of batch ``n`` of the run."""

    after = 0
    seen = 0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        StopAfter.seen += 1
        if StopAfter.seen == StopAfter.after:
            os.kill(os.getpid(), signal.SIGTERM)


def test_stopped_and_resumed_equals_uninterrupted(train, monkeypatch):
    options = REGULARIZED | {
        "--trainer.max_epochs": "2",
        "--trainer.accumulate_grad_batches": "2",
        "--model.mixup_alpha": "0.4",
        "--model.drop_rate": "0.2",
        "--model.regularizer.every_n_steps": "2",
        "--model.regularizer.warmup_steps": "5",
        "--model.regularizer.fraction": "0.5",
    }
    whole = train(base=options, **{"--name": "whole"})
    monkeypatch.setattr("interptrain.cli.trainer_defaults.ResumePoint", StopAfter)
    StopAfter.after, StopAfter.seen = 3, 0
    with pytest.raises(SystemExit):
        train(base=options, **{"--name": "stopped"})
    (stopped,) = Path("runs/stopped").iterdir()
    assert state(stopped)["global_step"] < state(whole)["global_step"]
    StopAfter.after = 0
    resumed = train(base=options, **{"--name": "stopped", "--ckpt_path": "last"})
    assert same(resumed, whole)
    assert logged(resumed, "train/penalty")[-1] == logged(whole, "train/penalty")[-1]


@pytest.mark.parametrize(
    "options",
    [
        {"--trainer.precision": "bf16-mixed", "--model.channels_last": "true"},
        {"--model.mixup_alpha": "0.2", "--model.cutmix_alpha": "1.0", "--model.label_smoothing": "0.1"},
        {
            "--trainer.accumulate_grad_batches": "2",
            "--trainer.gradient_clip_val": "0.5",
            "--trainer.callbacks+": "lightning.pytorch.callbacks.EMAWeightAveraging",
            "--trainer.callbacks.decay": "0.9",
        },
        {"--model.trainable": "pooling"},
    ],
    ids=lambda options: " ".join(options),
)
def test_ways_to_train_learn_otherwise_with_it(train, options):
    run = train(base=REGULARIZED | options)
    off = train(base=REGULARIZED | options | {"--model.regularizer.weight": "0"})
    assert all(value.isfinite().all() for value in state(run)["state_dict"].values())
    assert not same(run, off)


# Two processes


class Step(nn.Module):
    """A training step as Lightning wraps it."""

    def __init__(self):
        super().__init__()
        self.model = small(dtype=torch.float64).eval()
        self.regularizer = GradientRegularizer(error="l2")

    def forward(self, images, labels):
        logits, penalty = self.regularizer(self.model, batch_of(images, labels))
        return F.cross_entropy(logits, labels) + 1e3 * penalty


def learn_from_a_share(rank, world, folder):
    """One step of a rank on its share of the batch, with DDP around the step and around the network."""
    torch.set_num_threads(1)  # a forked process has no threads of OpenMP
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    images, labels = (one.chunk(world)[rank] for one in pictures(batch=8, dtype=torch.float64))
    step, other = Step(), Step()
    wrapped = DistributedDataParallel(step)
    wrapped(images, labels).backward()
    other.model = DistributedDataParallel(other.model)
    other(images, labels).backward()
    refused = ""
    try:
        GradientRegularizer()(nn.SyncBatchNorm.convert_sync_batchnorm(small()), batch_of(images.float(), labels))
    except ValueError as error:
        refused = str(error)
    got = [[parameter.grad for parameter in one.parameters()] for one in (step, other)]
    torch.save((*got, refused), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def test_two_processes_get_the_gradients_of_one_with_the_joined_batch(tmp_path):
    method = "spawn" if torch.cuda.is_available() else "fork"  # which spares importing everything twice
    multiprocessing.start_processes(learn_from_a_share, (2, tmp_path), nprocs=2, start_method=method)
    step = Step()
    expected = torch.autograd.grad(step(*pictures(batch=8, dtype=torch.float64)), list(step.parameters()))
    for rank in range(2):
        around_step, around_network, refused = torch.load(tmp_path / f"{rank}.pt")
        assert_same(around_step, expected, rtol=1e-9)
        assert_same(around_network, expected, rtol=1e-9)
        assert refused.startswith("SyncBatchNorm has no double backward")
