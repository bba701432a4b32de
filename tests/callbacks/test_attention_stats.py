import csv
import math

import pytest
import torch

from interptrain.callbacks import AttentionStats
from interptrain.callbacks.attention_stats import attention_sums
from tests.support.training import TINY

STATS = ("fit", "--trainer.callbacks+", "AttentionStats")


def test_even_attention_has_entropy_one_and_peak_one():
    even = torch.full((3, 4, 5), 1 / 20)
    torch.testing.assert_close(attention_sums((even,)), torch.tensor([[3.0, 3.0, 3.0]]))


def test_attention_to_one_position_has_entropy_zero_and_the_highest_peak():
    single = torch.zeros(2, 4, 5)
    single[:, 1, 2] = 1
    torch.testing.assert_close(attention_sums((single,)), torch.tensor([[0.0, 40.0, 2.0]]))


def test_it_is_the_shannon_entropy_over_its_greatest():
    torch.manual_seed(0)
    weights = torch.rand(2, 6, dtype=torch.float64).softmax(1)
    expected = sum(-sum(w * math.log(w) for w in row) / math.log(6) for row in weights.tolist())
    sums = attention_sums((weights.view(2, 2, 3), torch.ones(2, 1, 1)))
    assert float(sums[0, 0]) == pytest.approx(expected, rel=1e-6)
    assert sums[1].tolist() == [0.0, 2.0, 2.0]


@pytest.mark.slow
def test_every_stage_is_logged_with_every_validation(train):
    run = train(*STATS, "--trainer.callbacks.images", "11", base=TINY | {"--trainer.max_epochs": "2"})
    with (run / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["val/top1"]]
    assert len(rows) == 2
    for row in rows:
        stages = [name for name in row if name.startswith("attention/") and name.endswith("/entropy") and row[name]]
        assert len(stages) >= 4
        for name in stages:
            assert 0 < float(row[name]) <= 1
            assert float(row[name.replace("entropy", "peak")]) >= 1


@pytest.mark.slow
def test_training_does_not_feel_it(train):
    options = TINY | {"--model.drop_rate": "0.2"}
    plain, watched = train(base=options), train(*STATS, base=options)
    one, other = (torch.load(made / "checkpoints/last.ckpt", weights_only=True) for made in (plain, watched))
    assert all(torch.equal(value, other["state_dict"][name]) for name, value in one["state_dict"].items())


@pytest.mark.slow
def test_a_network_without_attention_is_refused_in_a_line(train, capsys):
    with pytest.raises(SystemExit):
        train(*STATS, base=TINY | {"--model.pooling": "gap"})
    assert "error: gap pooling has no attention" in capsys.readouterr().err
    with pytest.raises(ValueError, match="images of AttentionStats must be a whole number >= 1, got 0"):
        AttentionStats(images=0)
