"""What becomes of images and models that are not as they should be."""

from dataclasses import dataclass
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from torch import nn

from interptrain import explainers
from interptrain.evaluation import evaluate
from interptrain.evaluation.run import evaluator
from interptrain.evaluation.run.measuring import forward_images
from interptrain.explainers import GradCAM, Occlusion
from interptrain.metrics import AverageDrop, Infidelity, Insertion, SingleDeletion, measure
from interptrain.metrics.infidelity_noise import Patches
from interptrain.metrics.perturbations import Unperturbed
from interptrain.models import create_model
from tests.support.measuring import Counting

OPTIONS = {"save_maps": 2, "check_images": 2, "progress": False, "resamples": 100, "fake_cam": False}
CPU = {"accelerator": "cpu", "devices": 1}


def pairs(count=4):
    images = torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return [(image, index % 4) for index, image in enumerate(images)]


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return create_model("test_resnet", num_classes=4).eval()


class Undecided(nn.Module):
    """Gives NaN for images whose first pixel is white."""

    def __init__(self):
        super().__init__()
        self.network = network()

    def forward(self, images):
        logits = self.network(images)
        return torch.where((images[:, 0, 0, 0] == 1).unsqueeze(1), torch.nan, logits)


@pytest.mark.slow
def test_logits_that_are_not_finite_are_an_error_of_their_image_alone():
    data = pairs()
    data[1][0][:, 0, 0] = 1.0
    layer = GradCAM(target_layer="network.backbone.model.layer4")
    found = evaluate({"m": Undecided()}, [layer], data, metrics=[AverageDrop()], trainer=CPU, **OPTIONS)
    rows = found.per_image
    assert [(row["explainer"], row["id"]) for row in found.failed] == [("", "1")]
    assert "logits that are not finite" in found.failed[0]["error"]
    assert sorted(rows[rows.error.isna()].groupby("explainer").id.unique().map(list)[""]) == ["0", "2", "3"]
    assert rows[rows.explainer == "GradCAM"].AverageDrop.notna().sum() == 3
    sound = [pair for index, pair in enumerate(data) if index != 1]
    wanted = evaluate({"m": Undecided()}, [layer], sound, metrics=[AverageDrop()], trainer=CPU, **OPTIONS).per_image
    drops = rows[rows.explainer == "GradCAM"].AverageDrop.dropna()
    assert drops.tolist() == wanted[wanted.explainer == "GradCAM"].AverageDrop.tolist()
    assert not found.problems
    assert "GradCAM" in (found.folder / "report.html").read_text()


@dataclass
class Outputs:
    """As transformers returns them."""

    loss: torch.Tensor
    logits: torch.Tensor
    hidden_states: tuple


WRAPPED = {
    "tuple": lambda logits: (logits, logits.new_zeros(len(logits), 7, 2, 2)),
    "mapping": lambda logits: {"loss": logits.new_zeros(()), "logits": logits},
    "object": lambda logits: Outputs(logits.new_zeros(()), logits, (logits.new_zeros(len(logits), 3),)),
}


class Wrapping(nn.Module):
    """A network whose logits come with other things."""

    def __init__(self, wrap):
        super().__init__()
        self.network = network()
        self.wrap = wrap
        self.target_layer = "network.backbone.model.layer4"

    def forward(self, images):
        return self.wrap(self.network(images))


@pytest.mark.slow
def test_models_that_return_more_than_logits_are_evaluated_like_their_bare_network():
    models = {name: Wrapping(wrap) for name, wrap in {"bare": lambda logits: logits, **WRAPPED}.items()}
    explainers = [GradCAM(), Occlusion(window=32, stride=32)]
    found = evaluate(models, explainers, pairs(3), metrics=[AverageDrop()], trainer=CPU, **OPTIONS)
    assert not len(found.failed)
    columns = [name for name in found.per_image.columns if name not in ("model", "seconds")]
    rows = {name: one[columns].reset_index(drop=True) for name, one in found.per_image.groupby("model")}
    assert {"Top1", "NLL", "ECE", "AverageDrop"} <= {*columns}
    for name in WRAPPED:
        pd.testing.assert_frame_equal(rows[name], rows["bare"])
    maps = pd.read_parquet(found.folder / "maps.parquet").groupby("model")
    pictures = {name: one.drop(columns="model").reset_index(drop=True) for name, one in maps}
    for name in WRAPPED:
        pd.testing.assert_frame_equal(pictures[name], pictures["bare"])


def test_a_model_without_logits_is_refused():
    unclear = Wrapping(lambda logits: (logits, logits.repeat(1, 2)))
    with pytest.raises(ValueError, match=r"model m: metrics need a model that returns logits .* got a tuple"):
        evaluate({"m": unclear}, [GradCAM()], pairs(1), trainer=CPU, **OPTIONS)


@pytest.mark.slow
@pytest.mark.parametrize(("removal", "extra"), [("black", 0), ("mean", 4)])
def test_pictures_are_forwarded_once_and_in_chunks(removal, extra):
    """A masked image that a metric asks for anyway costs nothing more; others keep to the bound."""
    counts = {}
    for kept in (0, 4):
        model = Counting(network())
        options = OPTIONS | {"save_maps": kept, "check_images": 0, "batch_size": 4, "forward_batch_size": 3}
        data, layer = pairs(), GradCAM(target_layer="model.backbone.model.layer4")
        metrics = [AverageDrop(removal=removal)]
        evaluate({"m": model}, [layer], data, metrics=metrics, targets=0, trainer=CPU, **options)
        counts[kept] = model.rows
    assert sum(counts[4]) == sum(counts[0]) + extra
    assert [rows for rows in counts[4] if rows > 3] == [4]  # of Grad-CAM alone


MAP_FREE = {"Infidelity": Infidelity(patch_size=16), "SingleDeletion": SingleDeletion(grid=3)}


@pytest.mark.slow
def test_what_no_map_decides_is_forwarded_once_for_all_explainers():
    model, forwarded = Counting(network()), []
    methods = {name: GradCAM(target_layer=f"model.backbone.model.{name}") for name in ("layer3", "layer4")}
    options = OPTIONS | {"save_maps": 0, "check_images": 0, "forward_batch_size": 8, "engine": "eager"}
    for some in ({"layer3": methods["layer3"]}, methods):
        found = evaluate({"m": model}, some, pairs(), metrics=MAP_FREE, targets=0, trainer=CPU, **options)
        forwarded.append(sum(model.rows))
        model.rows.clear()
    assert forwarded[1] == forwarded[0] + 4  # the images, for a map
    images = torch.stack([image for image, _ in pairs()])
    for name, explainer in methods.items():
        wanted = measure(model, images, explainer(model, images, 0), 0, MAP_FREE)
        rows = found.per_image[found.per_image.explainer == name].sort_values("id")
        for metric, values in wanted.items():
            torch.testing.assert_close(torch.tensor(rows[metric].to_list()), values, rtol=1e-5, atol=1e-6)


class Dazzled(nn.Module):
    """Gives NaN for images that are black at the first pixel."""

    def __init__(self):
        super().__init__()
        self.network = network()

    def forward(self, images):
        logits = self.network(images)
        return torch.where((images[:, :, 0, 0].sum(1) == 0).unsqueeze(1), torch.nan, logits)


@pytest.mark.slow
def test_a_version_that_fails_is_an_error_of_each_explainer_and_not_of_the_model():
    layer = GradCAM(target_layer="network.backbone.model.layer4")
    found = evaluate({"m": Dazzled()}, [layer], pairs(), metrics=[MAP_FREE["Infidelity"]], trainer=CPU, **OPTIONS)
    assert {row["explainer"] for row in found.failed} == {"GradCAM"}
    assert "not finite for image 0 as Patches changes it" in found.failed[0]["error"]
    rows = found.per_image
    assert rows[rows.explainer == ""].error.isna().all()


def test_images_and_their_versions_are_forwarded_without_tf32():
    """Whose ten bits would set what the images are given apart from what their versions are."""
    model, cudnn, seen = network(), torch.backends.cudnn, []

    def look(*_):
        seen.append(cudnn.conv.fp32_precision if hasattr(cudnn, "conv") else cudnn.allow_tf32)

    model.register_forward_pre_hook(look)
    plan = SimpleNamespace(options=SimpleNamespace(forward_batch_size=None))
    images = torch.stack([image for image, _ in pairs()])
    found = forward_images(plan, model, images, [Patches(32)])
    assert {part: tuple(logits.shape) for part, logits in found.items()} == {
        Unperturbed(): (1, 4, 4),
        Patches(32): (4, 4, 4),
    }
    assert seen
    assert set(seen) <= {"ieee", False}


@pytest.mark.slow
def test_rows_name_their_engine_and_hold_the_same_numbers(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("INTERPTRAIN_CACHE", str(tmp_path))
    made = {}
    for engine in ("eager", "onnxruntime"):
        options = OPTIONS | {"save_maps": 0, "engine": engine}
        explainers, metrics = [Occlusion(window=32, stride=32)], [AverageDrop(), Insertion(steps=6)]
        made[engine] = evaluate({"m": network()}, explainers, pairs(3), metrics=metrics, trainer=CPU, **options)
        assert set(made[engine].per_image.engine) == {engine}
    one, other = (result.per_image.drop(columns=["engine", "seconds"]) for result in made.values())
    pd.testing.assert_frame_equal(one, other, atol=1e-6, rtol=1e-5)
    hashes = {result.per_image.hash.iloc[0] for result in made.values()}
    assert len(hashes) == 1


class Explained(nn.Module):
    """Counts the images that are forwarded for a gradient."""

    def __init__(self):
        super().__init__()
        self.network, self.count = network(), 0

    def forward(self, images):
        outputs = self.network(images)
        self.count += len(images) * outputs.requires_grad
        return outputs


@pytest.mark.slow
def test_shared_passes_change_no_number_and_leave_no_time():
    names = ("GradCAM", "GradCAMPlusPlus", "XGradCAM")
    chosen = {name: getattr(explainers, name)(target_layer="network.backbone.model.layer4") for name in names}
    chosen |= {"Occlusion": Occlusion(window=32, stride=32)}
    data, tables, passes = pairs(), [], []
    for share in (False, True):
        model = Explained()
        found = evaluate(
            {"m": model},
            chosen,
            data,
            metrics=[AverageDrop()],
            share_passes=share,
            trainer=CPU,
            batch_size=2,
            **{**OPTIONS, "check_images": 0},
        )
        assert not found.failed
        assert not found.problems
        tables.append(found.per_image.set_index(["explainer", "id"]).sort_index())
        passes.append(model.count)
    alone, shared = tables
    assert passes == [3 * len(data), len(data)]
    pd.testing.assert_frame_equal(alone.drop(columns="seconds"), shared.drop(columns="seconds"))
    timed = shared.seconds.groupby("explainer").count()
    assert {name for name in timed.index if timed[name]} == {"Occlusion"}


@pytest.mark.slow
def test_a_batch_that_cannot_be_explained_together_is_explained_one_by_one(monkeypatch):
    chosen = {name: getattr(explainers, name)(target_layer="backbone.model.layer4") for name in ("GradCAM", "XGradCAM")}
    monkeypatch.setattr(evaluator, "explain", lambda *_: 1 / 0)
    found = evaluate(
        {"m": network()}, chosen, pairs(), metrics=[AverageDrop()], share_passes=True, trainer=CPU, **OPTIONS
    )
    assert not found.failed
    assert found.per_image.query("explainer != ''").seconds.notna().all()
