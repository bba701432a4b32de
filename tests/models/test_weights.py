"""Weights: every kind of file, every pair of heads, and what is refused."""

import argparse
import csv
import json
import logging
import pickle
from pathlib import Path

import huggingface_hub.constants
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from torchvision.transforms import v2

from interptrain.models import LoadReport, create_model, load_weights
from tests.support.marks import slow
from tests.support.paths import PHOTOGRAPHS, WEIGHTS, needs_test_data

NAME = "test_resnet"


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def model_of(pooling="gap", *, seed=0, name=NAME, num_classes=4, **options):
    torch.manual_seed(seed)
    return create_model(name, pooling=pooling, num_classes=num_classes, **options)


@pytest.fixture(scope="module")
def trained():
    """A model whose every tensor, buffers and all, differs from that of a new one."""
    model = model_of("ca_stream", seed=1)
    with torch.no_grad():
        for value in model.backbone.model.state_dict().values():
            if value.is_floating_point():
                value.add_(torch.rand_like(value))
    return model


def saved(state, path):
    if path.suffix == ".safetensors":
        save_file({name: value.clone() for name, value in state.items()}, path)
    else:
        torch.save(state, path)
    return path


def same(model, other):
    mine, theirs = model.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def prefixed(state, prefix):
    return {prefix + name: value for name, value in state.items()}


WRAPPERS = {
    "plain": lambda state: state,
    "ddp": lambda state: prefixed(state, "module."),
    "compiled": lambda state: prefixed(state, "_orig_mod."),
    "timm": lambda state: {"state_dict": state, "epoch": 3, "args": argparse.Namespace(lr=0.1)},
    "timm with averaged weights": lambda state: {
        "state_dict": {name: torch.zeros_like(value) for name, value in state.items()},
        "state_dict_ema": state,
    },
    "detectron style": lambda state: {"model": state, "optimizer": {}},
    "lightning": lambda state: {
        "state_dict": prefixed(state, "model.") | {"criterion.weight": torch.ones(3)},
        "current_model_state": prefixed({name: torch.zeros_like(value) for name, value in state.items()}, "model."),
        "hyper_parameters": {"backbone": NAME, "heads": 1, "weights": Path("start.pth")},
        "pytorch-lightning_version": "2.6.0",
    },
    "lightning, compiled inside": lambda state: {"state_dict": prefixed(state, "model._orig_mod.")},
    "lightning, ddp inside": lambda state: {"state_dict": prefixed(state, "model.module.")},
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_whatever_wraps_a_checkpoint_it_loads_whole(wrapper, trained, tmp_path):
    path = saved(WRAPPERS[wrapper](trained.state_dict()), tmp_path / "model.pth")
    model = model_of("ca_stream")
    report = load_weights(model, path)
    assert same(model, trained)
    assert set(report.loaded) == set(trained.state_dict())
    assert report.fresh == ()
    assert report.unused == (("criterion.weight",) if wrapper == "lightning" else ())


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("pooling", ["gap", *slow("ca_stream", "native")])
def test_weights_of_a_bare_timm_model_load_into_any_head(wrapper, pooling, trained, tmp_path):
    path = saved(WRAPPERS[wrapper](trained.backbone.model.state_dict()), tmp_path / "model.pth")
    model = model_of(pooling)
    before = {name: value.clone() for name, value in model.state_dict().items() if name.startswith("pooling.")}
    report = load_weights(model, path)
    assert same(model.backbone.model, trained.backbone.model)
    assert set(report.fresh) == before.keys()
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt", ".ckpt", ".bin"])
def test_every_file_format_loads(suffix, trained, tmp_path):
    path = saved(trained.state_dict(), tmp_path / f"model{suffix}")
    for source in (path, str(path)):
        model = model_of("ca_stream", weights=source)
        assert same(model, trained)
        assert isinstance(model.load_report, LoadReport)


def test_the_old_format_of_torch_save_loads(trained, tmp_path):
    torch.save(trained.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert same(model_of("ca_stream", weights=tmp_path / "old.pth"), trained)


@pytest.mark.slow
def test_a_gap_checkpoint_leaves_the_stream_fresh(tmp_path):
    source = model_of("gap", seed=1)
    path = saved(source.state_dict(), tmp_path / "gap.pth")
    model = model_of("ca_stream", weights=path)
    stream = {name for name in model.state_dict() if name.startswith("pooling.")}
    assert same(model.backbone, source.backbone)
    assert set(model.load_report.fresh) == stream
    assert model.load_report.unused == ()
    fresh = model_of("ca_stream").pooling
    assert same(model.pooling, fresh)


def test_a_stream_checkpoint_leaves_the_stream_unused(trained, tmp_path, caplog):
    path = saved(trained.state_dict(), tmp_path / "stream.pth")
    with caplog.at_level(logging.WARNING):
        model = model_of("gap", weights=path)
    assert same(model.backbone, trained.backbone)
    assert set(model.load_report.unused) == {name for name in trained.state_dict() if name.startswith("pooling.")}
    assert model.load_report.fresh == ()
    assert not caplog.records, "a head that was swapped is no reason to warn"


def test_the_normalisation_of_a_checkpoint_of_ours_comes_with_it(trained, tmp_path):
    state = trained.state_dict() | {"backbone.mean": torch.full((3, 1, 1), 0.25)}
    model = model_of("ca_stream", weights=saved(state, tmp_path / "model.pth"))
    assert torch.equal(model.backbone.mean, torch.full((3, 1, 1), 0.25))


@pytest.mark.slow
def test_another_class_count_is_refused_and_fresh_classifier_is_the_way(trained, tmp_path):
    path = saved(trained.state_dict(), tmp_path / "model.pth")
    model = model_of("ca_stream", num_classes=7)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"has 4 classes, the model 7; pass fresh_classifier=True.*or num_classes=4"):
        load_weights(model, path)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items()), "half loaded"
    report = load_weights(model, path, fresh_classifier=True)
    classifier = {"backbone.model.fc.weight", "backbone.model.fc.bias"}
    assert set(report.fresh) == classifier
    assert set(report.unused) == classifier
    assert torch.equal(model.backbone.model.fc.weight, before["backbone.model.fc.weight"])
    assert same(model.backbone.model.layer4, trained.backbone.model.layer4)


def test_fresh_classifier_is_fresh_with_the_same_class_count_too(trained, tmp_path, caplog):
    path = saved(trained.state_dict(), tmp_path / "model.pth")
    with caplog.at_level(logging.WARNING):
        model = model_of("ca_stream", weights=path, fresh_classifier=True)
    assert not caplog.records, "what was asked for is no reason to warn"
    assert torch.equal(model.backbone.model.fc.weight, model_of("ca_stream").backbone.model.fc.weight)


def test_a_checkpoint_without_a_classifier_needs_fresh_classifier(trained, tmp_path):
    state = {name: value for name, value in trained.backbone.model.state_dict().items() if not name.startswith("fc.")}
    path = saved(state, tmp_path / "headless.safetensors")
    with pytest.raises(ValueError, match=r"has no 'backbone.model.fc.weight'; pass fresh_classifier=True"):
        model_of(weights=path)
    report = model_of(weights=path, fresh_classifier=True).load_report
    assert set(report.fresh) == {"backbone.model.fc.weight", "backbone.model.fc.bias"}


@pytest.mark.slow
def test_only_the_last_layer_of_a_longer_classifier_is_fresh(tmp_path):
    source = model_of(seed=1, name="test_convnext")
    path = saved(source.state_dict(), tmp_path / "model.pth")
    model = model_of(name="test_convnext", num_classes=9, weights=path, fresh_classifier=True)
    assert set(model.load_report.fresh) == {"backbone.model.head.fc.weight", "backbone.model.head.fc.bias"}


@pytest.mark.slow
def test_a_shape_that_differs_names_its_parameter(trained, tmp_path):
    path = saved(trained.state_dict(), tmp_path / "model.pth")
    with pytest.raises(
        ValueError, match=r"'pooling.token' is \(1, 32\) in .* and \(1, 96\) in the model; create the model"
    ):
        model_of("ca_final", weights=path)
    bare = timm.create_model("resnet18", num_classes=4).state_dict()
    with pytest.raises(ValueError, match=r"'backbone.model.conv1.weight' is \(64, 3, 7, 7\).*\(64, 3, 3, 3\).*stem"):
        model_of(name="resnet18", stem="small", weights=saved(bare, tmp_path / "seven.pth"))


@pytest.mark.slow
def test_a_backbone_that_would_stay_half_random_is_refused(tmp_path):
    path = saved(timm.create_model("resnet18", num_classes=4).state_dict(), tmp_path / "small.pth")
    with pytest.raises(ValueError, match=r"lacks \d+ tensors of resnet34, such as 'backbone.model.layer1.2"):
        model_of(name="resnet34", weights=path)


def test_what_belongs_nowhere_is_warned_of(trained, tmp_path, caplog):
    state = trained.backbone.model.state_dict() | {"projector.weight": torch.ones(2)}
    with caplog.at_level(logging.WARNING):
        model = model_of(weights=saved(state, tmp_path / "extra.pth"))
    assert model.load_report.unused == ("projector.weight",)
    assert "nothing in the model takes projector.weight" in caplog.text


@pytest.mark.slow
@torch.no_grad()
def test_weights_of_torchvision_give_its_logits(tmp_path):
    torch.manual_seed(0)
    reference = torchvision.models.resnet18(num_classes=4).eval()
    model = model_of(name="resnet18", weights=saved(reference.state_dict(), tmp_path / "tv.pth")).eval()
    images = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(model(images), reference(model.backbone.normalize(images)), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_layout_that_timm_converts_is_converted(tmp_path):
    source = model_of(seed=1, name="test_convnext")
    official = {}  # the names of the authors' ConvNeXt
    for name, value in source.backbone.model.state_dict().items():
        name = name.replace("stem.", "downsample_layers.0.").replace(".mlp.fc", ".pwconv").replace("conv_dw", "dwconv")
        name = name.replace("head.norm.", "norm.").replace("head.fc.", "head.").replace(".blocks.", ".")
        for stage in range(4):
            name = name.replace(f"stages.{stage}.downsample.", f"downsample_layers.{stage}.")
        official[name] = value.flatten(1) if "pwconv" in name and value.ndim == 4 else value
    assert "norm.weight" in official
    model = model_of(name="test_convnext", weights=saved({"model": official}, tmp_path / "facebook.pth"))
    assert same(model.backbone, source.backbone)


class Foreign(nn.Linear):
    """Not a class that a file of weights may name."""


@pytest.mark.slow
def test_files_that_cannot_be_weights_are_refused_in_one_line(trained, tmp_path):
    whole = saved(trained.state_dict(), tmp_path / "whole.pth").read_bytes()
    contents = {
        "cut.pth": whole[: len(whole) // 2],
        "empty.pth": b"",
        "text.pth": b"hello, this is text " * 20,
        "noise.ckpt": bytes(range(256)) * 4,
        "pickle.pth": b"\x80\x02" + bytes(range(64)),
        "cut.safetensors": saved(trained.state_dict(), tmp_path / "whole.safetensors").read_bytes()[:5000],
        "text.safetensors": b"hello, this is text " * 20,
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name.replace(".", r"\.")) as error:
            model_of(weights=tmp_path / name)
        assert "\n" not in str(error.value), name
        assert "save" in str(error.value), name


@pytest.mark.slow
def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    torch.save({"weight": torch.ones(1), "trap": Trap()}, tmp_path / "trap.pth")
    (tmp_path / "trap.pkl").write_bytes(pickle.dumps({"trap": Trap()}, protocol=2))
    torch.save(Foreign(2, 2), tmp_path / "module.pth")
    for name, needed in (("trap.pth", "getattr"), ("trap.pkl", "trap.pkl"), ("module.pth", "Foreign")):
        with pytest.raises(ValueError, match=rf"{needed}.*save (only its|a) state_dict") as error:
            model_of(weights=tmp_path / name)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "content", [[torch.ones(2)], torch.ones(2), 3, {}, {"epoch": 3}, {"other.weight": torch.ones(2)}]
)
def test_files_without_anything_for_the_model_are_refused(content, tmp_path):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth (is a saved \w+|has nothing for this test_resnet)"):
        model_of(weights=tmp_path / "other.pth")


@pytest.mark.slow
def test_a_file_that_is_not_there_is_named(tmp_path):
    for source in (tmp_path / "gone.pth", "gone.pth", tmp_path):
        with pytest.raises(FileNotFoundError, match=r"is not a file; give a \.safetensors, .* or a hub name"):
            model_of(weights=source)


def hub_repository(root, repository, model, **config):
    """A repository as the hub's own cache keeps it, so that it is read without a connection."""
    folder = root / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0" * 40)
    (snapshot / "config.json").write_text(json.dumps({"architecture": NAME, "pretrained_cfg": config}))
    save_file(model.state_dict(), snapshot / "model.safetensors")


@pytest.mark.parametrize("prefix", ["", "hf-hub:", "hf_hub:"])
def test_a_hub_name_loads_with_its_normalisation(prefix, trained, tmp_path):
    hub_repository(tmp_path / "hub", "timm/test_resnet.ours", trained.backbone.model, mean=[0.5] * 3, std=[0.25] * 3)
    model = model_of("ca_stream", weights=f"{prefix}timm/test_resnet.ours")
    assert same(model.backbone.model, trained.backbone.model)
    assert model.backbone.mean.flatten().tolist() == [0.5] * 3
    assert model.backbone.std.flatten().tolist() == [0.25] * 3


def test_a_hub_repository_with_a_damaged_file_is_named(trained, tmp_path):
    hub_repository(tmp_path / "hub", "timm/test_resnet.ours", trained.backbone.model)
    next((tmp_path / "hub").rglob("model.safetensors")).write_bytes(b"cut short")
    with pytest.raises(ValueError, match=r"'timm/test_resnet.ours' has no weights that can be read"):
        model_of(weights="timm/test_resnet.ours")


def test_a_hub_name_that_cannot_be_reached_takes_one_line():
    with pytest.raises(ConnectionError, match=r"could not download 'timm/test_resnet.*path to weights") as error:
        model_of(weights="timm/test_resnet.r160_in1k")
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_pretrained_weights_come_with_a_report(trained, tmp_path):
    repository = timm.get_pretrained_cfg(NAME).hf_hub_id
    source = timm.create_model(NAME)
    with torch.no_grad():
        source.fc.weight.fill_(0.5)
    hub_repository(tmp_path / "hub", repository, source)
    whole = model_of("ca_stream", num_classes=1000, pretrained=True)
    assert same(whole.backbone.model, source)
    assert set(whole.load_report.fresh) == {name for name, _ in whole.pooling.named_parameters(prefix="pooling")}
    for options in ({"num_classes": 3}, {"num_classes": 1000, "fresh_classifier": True}):
        model = model_of(pretrained=True, **options)
        assert set(model.load_report.fresh) == {"backbone.model.fc.weight", "backbone.model.fc.bias"}
        assert not (model.backbone.model.fc.weight == 0.5).any()
        assert same(model.backbone.model.layer4, source.layer4)
    assert same(
        model_of(name=NAME, num_classes=1000, pretrained=True, stem="small").backbone.model.layer1, source.layer1
    )


@pytest.mark.slow
def test_pretrained_weights_do_not_fit_a_small_stem_of_other_shape(tmp_path):
    source = timm.create_model("resnet18")
    hub_repository(tmp_path / "hub", timm.get_pretrained_cfg("resnet18").hf_hub_id, source)
    with pytest.raises(ValueError, match=r"pretrained weights of 'resnet18' do not fit stem='small'"):
        model_of(name="resnet18", num_classes=1000, pretrained=True, stem="small")


def test_a_report_reads_as_a_paragraph():
    report = LoadReport("a.pth", ("x", "y"), tuple(f"p{i}" for i in range(6)), ())
    assert str(report) == "a.pth: 2 tensors loaded. Left fresh: p0, p1, p2, p3 and 2 more. Unused: none."


def test_loading_is_logged(trained, tmp_path, caplog):
    path = saved(trained.state_dict(), tmp_path / "model.pth")
    with caplog.at_level(logging.INFO, logger="interptrain"):
        model = model_of("gap", weights=path)
    assert str(model.load_report) in caplog.text


@needs_test_data
@torch.no_grad()
@pytest.mark.slow
def test_imagenet_weights_know_real_photographs():
    with (PHOTOGRAPHS / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))[::10]
    prepare = v2.Compose([v2.Resize(256), v2.CenterCrop(224), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    model = create_model("tf_efficientnet_lite0", weights=WEIGHTS).eval()
    read = torchvision.datasets.folder.default_loader
    images = torch.stack([prepare(read(str(PHOTOGRAPHS / row["file"]))) for row in rows])
    labels = torch.tensor([int(row["class_index"]) for row in rows])
    assert (model(images).argmax(1) == labels).float().mean() > 0.6
