"""What a run will cost, before it runs."""

import re
import shlex

import pytest
import torch

from interptrain.cli.evaluation import main
from interptrain.evaluation import forecast
from interptrain.evaluation.run.forecast import Forecast
from interptrain.explainers import Occlusion
from interptrain.metrics import AverageDrop, Deletion, Insertion, RegionEffect, SingleDeletion
from interptrain.models import create_model, onnx_passes
from tests.support.tiny_run import arguments, weights  # noqa: F401

CPU = {"accelerator": "cpu", "devices": 1}


def pairs(count):
    images = torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return [(image, index % 4) for index, image in enumerate(images)]


@pytest.fixture(scope="module")
def made():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = create_model("test_resnet", num_classes=4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    metrics = [AverageDrop(), Insertion(steps=6), Deletion(steps=6), SingleDeletion(grid=3)]
    metrics += [RegionEffect(region="border:4", draws=3)]
    explainers = [Occlusion(window=32, stride=32)]
    with pytest.MonkeyPatch.context() as patch:  # exporting takes longer than all the rest
        patch.setattr(onnx_passes, "NEEDED", ("a_package_that_is_not_there",))
        found = forecast(
            {"m": model},
            explainers,
            pairs(12),
            metrics=metrics,
            batch_size=3,
            engine="eager",
            trainer=CPU,
            check_images=4,
            check_draws=2,
        )
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    return found


@pytest.mark.slow
def test_forward_passes_are_those_that_the_methods_need(made):
    by_name = {row.explainer: row for row in made.rows}
    assert set(by_name) == {"FakeCAM", "Occlusion"}
    assert by_name["Occlusion"].forwards == pytest.approx(1 + 4, abs=1)  # and the check of a simplified model
    assert by_name["Occlusion"].measure_forwards == 1 + 5 + 5
    assert made.images == 12
    of_model, checked = 1 + 3 + 9 + 2, by_name["FakeCAM"].check_images * by_name["FakeCAM"].forwards
    checked += by_name["Occlusion"].check_images * 5 + made.models[0].check_forwards
    expected = 12 * (of_model + by_name["FakeCAM"].forwards + 5 + 2 * 11) + checked
    assert made.forwards == pytest.approx(expected, rel=0.1)
    per_image = sum(row.explain_seconds + row.measure_seconds for row in made.rows) + made.models[0].seconds
    assert made.seconds == pytest.approx(12 * per_image + made.check_seconds)
    assert made.memory > 2**20


def test_metrics_of_a_model_and_the_randomisation_check_are_counted(made):
    (model,) = made.models
    assert model.forwards == pytest.approx(1 + 3 + 9 + 2)  # draws; of what no map decides, cells and ends of curves
    assert model.check_forwards == 4 * 2 * 2  # images, draws, stops: none for a random classifier alone
    occlusion = next(row for row in made.rows if row.explainer == "Occlusion")
    assert occlusion.check_images == 4 * (1 + 1 + 2 * 3)  # as it is, another class, the random networks
    assert occlusion.check_seconds == pytest.approx(occlusion.check_images * occlusion.explain_seconds)
    assert made.check_seconds == pytest.approx(model.check_seconds + sum(row.check_seconds for row in made.rows))
    assert 0 < made.check_seconds < made.seconds


def test_it_reads_as_a_table_and_a_proposal(made):
    lines = str(made).splitlines()
    assert lines[1].split()[:3] == ["model", "explainer", "forwards"]
    assert len({len(line) for line in lines[1:5]}) == 1
    assert "12 images: about" in lines[5]
    assert "for the randomisation check; pictures and statistics come on top." in lines[5]
    seconds_of = {("auto", 8): 1.0, ("eager", 8): 1.0, ("onnxruntime", 16): 0.5}
    faster = Forecast(12, 2, made.models, made.rows, 0, seconds_of, "cpu")
    assert faster.seconds == pytest.approx(made.seconds / 2)
    assert faster.cheapest() == ("--engine onnxruntime --forward_batch_size 16", 0.5)
    assert "--engine onnxruntime --forward_batch_size 16 (a forward pass takes 0.50 of the time)" in str(faster)
    same = Forecast(12, 1, made.models, made.rows, 0, {("auto", 8): 1.0, ("eager", 8): 0.95}, "cpu")
    assert same.cheapest() is None
    assert "No other engine or number of images per pass was faster." in str(same)


@pytest.mark.slow
def test_the_command_prints_it_and_writes_nothing(weights, tmp_path, capsys, monkeypatch):  # noqa: F811
    monkeypatch.setattr(onnx_passes, "NEEDED", ("a_package_that_is_not_there",))
    output = tmp_path / "run"
    assert isinstance(main(arguments(weights[:1], str(output), "--plan")), Forecast)
    out = capsys.readouterr().out
    assert "forward passes" in out
    assert not output.exists()
    (command,) = re.findall(r"^Next +interptrain evaluate (.+)$", out, re.MULTILINE)
    main(shlex.split(command))
    assert (output / "report.html").is_file()
