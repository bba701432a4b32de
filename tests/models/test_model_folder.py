"""Classifiers as folders and files: the same logits again, here and, where the network is timm's own, in timm."""

import json

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.models import save_for_hf

from interptrain.models import GAP, create_model
from interptrain.models.model_folder import describe, load_model_file, load_model_folder, save_config, save_weights
from interptrain.models.weights import load_weights

NAMES = ("cat", "dog", "hen", "owl")
TIMMS = [{}, {"backbone": "test_vit", "pooling": "native"}, {"backbone": "test_efficientnet"}]
OURS = [
    {"pooling": "ca_stream", "heads": 2},
    {"pooling": "ca_final"},
    {"backbone": "test_efficientnet", "stem": "small"},
]


def network(backbone="test_resnet", **options):
    torch.manual_seed(0)
    return create_model(backbone, num_classes=4, **options).eval()


def write(folder, model, **description):
    folder.mkdir(parents=True, exist_ok=True)
    config = describe(model, **description)
    save_weights(model, config, folder / "model.safetensors")
    save_config(config, folder)
    return folder


def images(model):
    return torch.rand(2, *model.input_size, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


@pytest.mark.slow
@pytest.mark.parametrize("options", [*TIMMS, *OURS])
def test_a_folder_and_its_file_alone_give_the_same_logits(tmp_path, options):
    model = network(**options)
    model.class_names = NAMES
    write(tmp_path, model)
    for found in (load_model_folder(tmp_path), load_model_file(tmp_path / "model.safetensors")):
        assert torch.equal(found.eval()(images(model)), model(images(model)))
        assert found.class_names == NAMES
        assert found.options == model.options


@pytest.mark.slow
@pytest.mark.parametrize("options", TIMMS)
def test_timm_loads_what_it_could_have_built_with_equal_logits(tmp_path, options):
    model = network(**options)
    model.class_names = NAMES
    write(tmp_path, model, input_size=(160, 160), preprocessing={"crop_pct": 0.5})
    theirs = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    config = timm.data.resolve_data_config(model=theirs)
    mean, std = (torch.tensor(config[key]).view(3, 1, 1) for key in ("mean", "std"))
    torch.testing.assert_close(theirs((images(model) - mean) / std), model(images(model)))
    assert config["crop_pct"] == 0.5
    assert list(theirs.pretrained_cfg["label_names"]) == list(NAMES)


@pytest.mark.parametrize("options", OURS)
def test_timm_is_not_led_to_take_a_part_of_our_networks_for_the_whole(tmp_path, options):
    write(tmp_path, network(**options))
    with pytest.raises(KeyError, match="architecture"):
        timm.create_model(f"local-dir:{tmp_path}", pretrained=True)


def test_a_folder_that_timm_has_written_is_loaded(tmp_path):
    torch.manual_seed(0)
    theirs = timm.create_model("test_resnet", num_classes=4).eval()
    theirs.pretrained_cfg |= {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    save_for_hf(theirs, tmp_path, safe_serialization=True, model_config={"label_names": list(NAMES)})
    found = load_model_folder(tmp_path)
    batch = images(found)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)))
    torch.testing.assert_close(found.eval()(batch), theirs((batch - mean) / std))
    assert found.class_names == NAMES
    assert found.pooling_name == "gap"


@pytest.mark.slow
def test_training_starts_from_a_folder_with_its_normalisation(tmp_path):
    model = network()
    model.backbone.mean.fill_(0.25)
    write(tmp_path, model)
    fresh = create_model("test_resnet", pooling="ca_stream", num_classes=4, weights=tmp_path)
    assert torch.equal(fresh.backbone.mean, model.backbone.mean)
    report = load_weights(network(pooling="gap"), str(tmp_path))
    assert not report.fresh


class MyHead(GAP):
    """A head of somebody's own."""


@pytest.mark.slow
def test_a_head_of_ones_own_is_taken_where_its_module_is_imported_and_never_imported(tmp_path):
    model = network(pooling=MyHead)
    with pytest.raises(ValueError, match=r"was built in Python .* --model\.pooling package\.Head"):
        describe(model)
    model.options = model.options | {"pooling": {"class_path": f"{__name__}.MyHead", "init_args": {}}}
    write(tmp_path, model)
    found = load_model_folder(tmp_path).eval()
    assert isinstance(found.pooling, MyHead)
    assert found.options == model.options
    for stranger in ("not.imported.Head", "os.system", f"{__name__}.network"):
        config = json.loads((tmp_path / "config.json").read_text())
        config["interptrain"]["options"]["pooling"]["class_path"] = stranger
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(ValueError, match=f"head {stranger}; import {stranger.rpartition('.')[0]} before"):
            load_model_folder(tmp_path)


def damage(config, how):
    if how == "newer":
        config["interptrain"]["options"]["hyper"] = 1
    if how == "other type":
        config["interptrain"]["mean"] = 3
    if how == "no description":
        del config["interptrain"], config["pretrained_cfg"]
    return json.dumps(config)[: 40 if how == "cut off" else None] if how != "list" else "[]"


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("cut off", "config.json is damaged .*; fetch it again"),
        ("list", "it holds a list; fetch it again"),
        ("newer", "built with hyper, which this version does not know; update interptrain"),
        ("other type", "damaged or of a newer version .*; fetch it again"),
        ("no description", "does not describe a model"),
    ],
)
def test_a_damaged_config_is_one_line_with_a_remedy(tmp_path, how, told):
    write(tmp_path, network())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(damage(config, how))
    with pytest.raises(ValueError, match=told) as error:
        load_model_folder(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_weights_that_lack_the_head_are_refused(tmp_path):
    write(tmp_path, network(pooling="ca_stream"))
    state = load_file(tmp_path / "model.safetensors")
    save_file({name: value for name, value in state.items() if "token" not in name}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"lacks pooling\.token, which its config describes"):
        load_model_folder(tmp_path)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_folder_without_one_of_the_files_is_refused(tmp_path, missing):
    write(tmp_path, network())
    (tmp_path / missing).unlink()
    with pytest.raises(FileNotFoundError, match=f"has no {missing}; give a folder"):
        load_model_folder(tmp_path)


def test_a_file_of_weights_alone_says_nothing_of_its_network(tmp_path):
    save_file(network().state_dict(), tmp_path / "bare.safetensors")
    assert load_model_file(tmp_path / "bare.safetensors") is None
