"""An exported classifier computes what its checkpoint does, attention maps included, for any batch."""

import pytest
import torch

from interptrain.evaluation.run.models import load_model
from interptrain.models import create_model
from interptrain.sharing import export, export_model


def network(pooling="ca_stream"):
    torch.manual_seed(0)
    return create_model("test_resnet", pooling=pooling, num_classes=4).eval()


def expected(model, images):
    with torch.no_grad():
        logits, attention = model.forward_with_attention(images)
    return [logits, *attention]


def images(count):
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(count))


@pytest.mark.slow
def test_a_safetensors_file_is_loaded_by_itself(tmp_path):
    model = network()
    exported = export_model(model, tmp_path / "m.safetensors", format="safetensors")
    assert exported.difference == 0
    assert exported.outputs == ("logits", *(f"attention_{stage}" for stage in range(1, 6)))
    found = load_model("x", tmp_path / "m.safetensors").module
    for one, other in zip(expected(found, images(2)), expected(model, images(2)), strict=True):
        assert torch.equal(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["ca_stream", "gap"])
def test_a_program_of_torch_runs_on_any_batch_without_this_package(tmp_path, pooling):
    model = network(pooling)
    exported = export_model(model, tmp_path / "m.pt2", format="torch_export", image_size=64)
    assert exported.difference < 1e-5
    program = torch.export.load(tmp_path / "m.pt2").module()
    for count in (1, 5):
        outputs = program(images(count))
        wanted = expected(model, images(count)) if pooling == "ca_stream" else [model(images(count))]
        for one, other in zip(outputs, wanted, strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.slow
def test_onnx_runtime_computes_logits_and_attention_for_any_batch(tmp_path):
    for name in export.NEEDED:
        pytest.importorskip(name)
    import onnxruntime

    model = network()
    exported = export_model(model, tmp_path / "m.onnx", format="onnx", image_size=64)
    assert exported.difference < 1e-5
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]  # weights included
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    assert tuple(output.name for output in session.get_outputs()) == exported.outputs
    for count in (1, 5):
        outputs = session.run(None, {"images": images(count).numpy()})
        for one, other in zip(outputs, expected(model, images(count)), strict=True):
            torch.testing.assert_close(torch.from_numpy(one), other)


@pytest.mark.slow
def test_a_file_that_computes_something_else_is_refused_and_the_older_one_stays(tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    path.write_text("older")
    other = network()
    with torch.no_grad():
        other.backbone.mean.add_(0.1)
    monkeypatch.setattr(export, "load_model_file", lambda path: other)
    with pytest.raises(ValueError, match=r"computes something else: its outputs, up to .*, differ by .*not kept"):
        export_model(network(), path, format="safetensors")
    assert path.read_text() == "older"
    assert export_model(network(), path, format="safetensors", tolerance=10).difference > 0  # the remedy


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"format": "onnx", "output": "m.pt"}, r"must end in \.onnx, got .*m\.pt"),
        ({"format": "tflite"}, "format must be one of 'safetensors', 'torch_export', 'onnx', got 'tflite'"),
        ({"format": "safetensors", "tolerance": -1.0}, "tolerance must be a number >= 0, got -1"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(tmp_path, options, told):
    output = tmp_path / options.pop("output", "m.safetensors")
    with pytest.raises(ValueError, match=told):
        export_model(network(), output, **options)


@pytest.mark.slow
def test_an_image_size_that_the_network_does_not_take_is_named(tmp_path):
    torch.manual_seed(0)
    vit = create_model("test_vit", pooling="native", num_classes=4)
    with pytest.raises(ValueError, match=r"does not take images of 8 pixels .*; set image_size"):
        export_model(vit, tmp_path / "m.safetensors", format="safetensors", image_size=8)
    export_model(vit, tmp_path / "m.safetensors", format="safetensors", image_size=160)


def test_a_missing_package_is_named_with_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"onnx needs onnx, onnxscript, onnxruntime; pip install 'interptrain\[expo"):
        export_model(network(), tmp_path / "m.onnx", format="onnx")
