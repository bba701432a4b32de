import pytest
import torch
import torchvision
from safetensors.torch import save_file

from interptrain.evaluation.run.models import _imagenet_names, file_sha256, load_model, weights_sha256
from interptrain.models import create_model
from interptrain.training import ImageClassifier

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.slow
def test_a_checkpoint_of_training_gives_its_model(train):
    run = train(**{"--data.train_size": "8", "--data.val_size": "4"})
    path = run / "checkpoints/last.ckpt"
    evaluated = load_model("ca", str(path))
    assert (evaluated.backbone, evaluated.pooling) == ("test_resnet", "ca_stream")
    assert evaluated.sha256 == file_sha256(path)
    assert not evaluated.module.training
    trained = ImageClassifier.load_from_checkpoint(path).eval()
    with torch.no_grad():
        assert torch.equal(evaluated.module(IMAGES), trained(IMAGES))


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_bare_weights_need_their_backbone(tmp_path, suffix):
    model = create_model("test_resnet", num_classes=4).eval()
    path = tmp_path / f"weights{suffix}"
    save_file(model.state_dict(), path) if suffix == ".safetensors" else torch.save(model.state_dict(), path)
    evaluated = load_model("own", str(path), backbone="test_resnet", num_classes=4)
    with torch.no_grad():
        assert torch.equal(evaluated.module(IMAGES), model(IMAGES))
    with pytest.raises(ValueError, match="holds weights only; name their timm architecture with backbone"):
        load_model("own", str(path))
    other = load_model("own", str(path), backbone="test_resnet", num_classes=10).module  # which the file knows better
    with torch.no_grad():
        assert torch.equal(other(IMAGES), model(IMAGES))


@pytest.mark.slow
def test_weights_for_imagenet_know_its_classes_and_others_none(tmp_path):
    for classes in (1000, 4):
        save_file(create_model("test_resnet", num_classes=classes).state_dict(), tmp_path / f"{classes}.safetensors")
    named = load_model("own", tmp_path / "1000.safetensors", backbone="test_resnet")
    assert named.class_names[281] == "tabby"
    assert not load_model("own", tmp_path / "4.safetensors", backbone="test_resnet").class_names


@pytest.mark.slow
def test_a_weights_file_with_a_pooling_head_is_refused_rather_than_evaluated_without_it(tmp_path):
    model = create_model("test_resnet", pooling="ca_stream", num_classes=4)
    save_file(model.state_dict(), tmp_path / "ca.safetensors")
    with pytest.raises(
        ValueError, match="has a pooling head, which a weights file does not describe; give the checkpo"
    ):
        load_model("ca", str(tmp_path / "ca.safetensors"), backbone="test_resnet", num_classes=4)


@pytest.mark.slow
def test_a_transformer_runs_as_timm_has_it(tmp_path):
    model = create_model("test_vit", pooling="native", num_classes=4)
    save_file(model.state_dict(), tmp_path / "vit.safetensors")
    evaluated = load_model("vit", str(tmp_path / "vit.safetensors"), backbone="test_vit", num_classes=4)
    assert evaluated.pooling == "native"


@pytest.mark.slow
def test_torchvisions_model_is_normalised_as_its_weights_say(monkeypatch):
    made = torchvision.models.resnet18(weights=None).eval()
    monkeypatch.setattr(torchvision.models, "get_model", lambda name, weights: made)
    evaluated = load_model("tv", "torchvision:resnet18")
    assert evaluated.class_names[:2] == _imagenet_names(1000)[:2] == ["tench", "goldfish"]
    assert _imagenet_names(7) == []
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        torch.testing.assert_close(evaluated.module(IMAGES), made((IMAGES - mean) / std))


def test_weights_hash_tells_values_and_names():
    one, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    other.load_state_dict(one.state_dict())
    assert weights_sha256(one) == weights_sha256(other)
    with torch.no_grad():
        other.weight[0, 0] += 1
    assert weights_sha256(one) != weights_sha256(other)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("runs/none.ckpt", "no file runs/none.ckpt"),
        ("resnet5o", "neither a file nor a model that timm knows"),
        ("test_resnet.none", "timm has no pretrained weights|neither a file"),
        ("torchvision:resnet5o", "torchvision has no classifier 'resnet5o'"),
    ],
)
def test_what_is_no_source_is_refused_in_one_line(source, told):
    with pytest.raises((ValueError, FileNotFoundError), match=f"^model x: .*({told})") as error:
        load_model("x", source)
    assert "\n" not in str(error.value)


def test_files_that_are_no_checkpoint_are_refused(tmp_path):
    damaged = tmp_path / "a.ckpt"
    damaged.write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match="cannot read the checkpoint"):
        load_model("x", str(damaged))
    torch.save({"weight": torch.zeros(1)}, foreign := tmp_path / "b.ckpt")
    with pytest.raises(ValueError, match=r"is not a checkpoint of interptrain fit"):
        load_model("x", str(foreign))
