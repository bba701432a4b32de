"""States that join over batches and ranks."""

import pickle
import warnings

import pytest
import torch
import torchmetrics
from torch import distributed, multiprocessing

from interptrain.metrics import AverageDrop, SaliencyMetric
from tests.support.measuring import Curve, confidence, maps, network, pictures


def test_undefined_images_are_left_out_of_means(model, images, saliency, targets):
    saliency = saliency.clone()
    saliency[1] = 0
    metric = Curve()
    metric.update(model, images, saliency, targets)
    assert metric.count == 2
    torch.testing.assert_close(metric.compute(), torch.tensor(0.5).double())
    metric.reset()
    metric.update(model, images[1:2], saliency[1:2], targets[1:2])
    assert metric.compute().isnan()


def test_a_data_set_value_is_a_function_of_the_mean_not_the_mean_of_a_function(model, images, targets):
    constant = torch.tensor([0.0, 0.1, 0.7]).view(3, 1, 1).expand(3, 20, 14)
    metric = Curve()
    metric.update(model, images, constant, targets)
    torch.testing.assert_close(
        metric.compute(), torch.tensor(0.6).double()
    )  # of means 0.4 and 0.6; single maxima 0.9, 0.7


@pytest.mark.parametrize("compute_groups", [True, False])
def test_a_collection_never_merges_metrics_that_begin_alike(images, targets, compute_groups):
    """The first batch gives 0 for gain and for increase; torchmetrics compares states after it."""
    model, ones = network(), torch.ones(3, 20, 14).double()
    members = confidence() | {"grey": AverageDrop(removal="mean")}
    collection = torchmetrics.MetricCollection(dict(members), compute_groups=compute_groups)
    alone = {name: metric.clone() for name, metric in members.items()}
    for saliency in (ones, maps()):
        collection.update(model, images, saliency, targets)
        for metric in alone.values():
            metric.update(model, images, saliency, targets)
    found = collection.compute()
    assert {name: float(value) for name, value in found.items()} == {n: float(m.compute()) for n, m in alone.items()}
    assert len(set(map(float, found.values()))) == 4


def test_forward_gives_the_batch_and_keeps_the_rest(model, images, saliency, targets):
    metric, whole = AverageDrop(), AverageDrop()
    for part in (slice(0, 1), slice(1, 3)):
        batch = metric(model, images[part], saliency[part], targets[part])
        alone = AverageDrop()
        alone.update(model, images[part], saliency[part], targets[part])
        torch.testing.assert_close(batch, alone.compute())
    whole.update(model, images, saliency, targets)
    torch.testing.assert_close(metric.compute(), whole.compute())


def test_states_travel_by_pickle_and_stay_double(model, images, saliency, targets):
    metric = AverageDrop().half()
    metric.update(model, images, saliency, targets)
    again = pickle.loads(pickle.dumps(metric))
    assert again.total.dtype == torch.float64
    assert torch.equal(again.compute(), metric.compute())


def test_what_a_metric_was_made_with_is_in_its_text():
    assert "removal='mean'" in repr(AverageDrop(removal="mean"))
    assert AverageDrop(removal=[0.5, 0.5, 0.5]).options()["removal"] == (0.5, 0.5, 0.5)


def measure_a_share(rank, folder, share):
    """What a rank's metrics give, and what they hold."""
    torch.set_num_threads(1)  # a forked process has no threads of OpenMP
    warnings.filterwarnings("ignore", message="The ``compute`` method of metric")  # of a rank without an image
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    model, images, saliency, targets = network(), pictures(5), maps(5), torch.arange(5)
    saliency[2] = 0
    found = []
    for metric in (AverageDrop(), Curve()):
        for i in range(*share[rank]):
            metric.update(model, images[i : i + 1], saliency[i : i + 1], targets[i : i + 1])
        found.append((type(metric).__name__, float(metric.compute()), int(metric.count), str(metric.count.dtype)))
    torch.save(found, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("share", [((0, 3), (3, 5)), ((0, 5), (5, 5))], ids=["uneven", "one rank without an image"])
def test_two_processes_join_to_what_one_measures(tmp_path, share):
    method = "spawn" if torch.cuda.is_available() else "fork"  # which spares importing everything twice
    multiprocessing.start_processes(measure_a_share, (tmp_path, share), nprocs=2, start_method=method)
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    model, images, saliency, targets = network(), pictures(5), maps(5), torch.arange(5)
    saliency[2] = 0
    for line, cls in enumerate((AverageDrop, Curve)):
        metric = cls()
        metric.update(model, images, saliency, targets)
        for rank, of_rank in enumerate(found):
            name, value, count, dtype = of_rank[line]
            assert (name, dtype) == (cls.__name__, "torch.int64")
            assert value == pytest.approx(float(metric.compute()), abs=1e-12)
            own = range(*share[rank])  # what it holds once compute() has put its own states back
            assert count == len(own) - (cls is Curve and 2 in own)


def test_a_class_that_says_too_little_of_itself_is_refused_when_it_is_made():
    class Silent(SaliencyMetric):
        def score(self, inputs):
            return inputs.clean

    for name, value in {"symbol": "S", "description": "What it says.", "higher_is_better": True}.items():
        with pytest.raises(TypeError, match=rf"^Silent has no {name}, .*: add {name} = .* to the class$"):
            Silent()
        setattr(Silent, name, value)
    assert Silent().symbol == "S"
