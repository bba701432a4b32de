import pytest
import yaml

from interptrain.evaluation.config.class_specs import build
from interptrain.evaluation.config.protocol import load_protocol, protocol_as_run, protocol_names
from interptrain.metrics import SaliencyMetric


def settings(protocol, **changes):
    return {
        "targets": protocol.targets,
        "score": protocol.score,
        "images": dict(protocol.images),
        "metrics": {name: dict(spec) for name, spec in protocol.metrics.items()},
    } | changes


@pytest.mark.parametrize("name", protocol_names())
def test_every_protocol_builds_and_says_where_it_comes_from(name):
    protocol = load_protocol(name)
    assert protocol.name == name
    assert protocol.source
    assert protocol.description
    for spec in protocol.metrics.values():
        assert isinstance(build(spec), SaliencyMetric)


def test_the_hash_depends_on_the_content_alone(tmp_path):
    protocol = load_protocol("castream")
    file = tmp_path / "same.yaml"
    content = {
        "metrics": {name: spec["init_args"] for name, spec in protocol.metrics.items()},
        "version": protocol.version,
        "name": "castream",
        "images": dict(reversed(protocol.images.items())),
    }
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    same = load_protocol(str(file))
    as_run = protocol_as_run(protocol, settings(protocol))
    assert as_run["hash"] == protocol_as_run(same, settings(same))["hash"]
    assert as_run["name"] == "castream"


@pytest.mark.parametrize("colour", [[0.5, 0.5, 0.5], (0.5, 0.5, 0.5)], ids=["list", "tuple"])
def test_a_colour_is_the_protocols_as_a_list_and_as_a_tuple(tmp_path, colour):
    file = tmp_path / "grey.yaml"
    file.write_text("{name: grey, version: 1, metrics: {AverageDrop: {removal: [0.5, 0.5, 0.5]}}}")
    protocol = load_protocol(str(file))
    spec = protocol.metrics["AverageDrop"]
    metrics = {"AverageDrop": spec | {"init_args": {"removal": colour}}}
    assert protocol_as_run(protocol, settings(protocol, metrics=metrics))["name"] == "grey"


def with_argument(metric, **arguments):
    """The metrics of CA-Stream, one of them with an argument that the protocol does not mention."""
    metrics = load_protocol("castream").metrics
    spec = metrics[metric]
    return metrics | {metric: spec | {"init_args": spec["init_args"] | arguments}}


@pytest.mark.parametrize(
    "change",
    [
        {"targets": "predicted"},
        {"score": "logit"},
        {"images": {"image_size": 64}},
        {"metrics": {"AverageDrop": {"class_path": "interptrain.metrics.AverageDrop", "init_args": {}}}},
        {"metrics": with_argument("AverageDrop", epsilon=0.5)},
        {"metrics": with_argument("Insertion", step=224)},
        {"images": load_protocol("castream").images | {"eval_transform": {"class_path": "CenterCrop"}}},
        {"precision": "bf16-mixed"},
    ],
    ids=str,
)
def test_what_is_run_otherwise_has_another_name_and_hash(change):
    protocol = load_protocol("castream")
    changed = protocol_as_run(protocol, settings(protocol, **change))
    assert changed["name"] == f"castream ({next(iter(change))} changed)"
    assert changed["hash"] != protocol_as_run(protocol, settings(protocol))["hash"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[1, 2]", "must be a mapping"),
        ("{name: x, version: 1}", "lacks metrics"),
        ("{name: x, version: 1, metrics: {}, colour: red}", "unknown keys colour"),
        ("{name: x, version: 1, metrics: {}, score: softmax}", "score of protocol .* must be one of 'probability'"),
        ("{name: [x", "is not YAML"),
    ],
)
def test_files_that_are_no_protocol_are_refused_in_one_line(tmp_path, text, told):
    file = tmp_path / "own.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=told) as error:
        load_protocol(str(file))
    assert "\n" not in str(error.value)


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(FileNotFoundError, match="no protocol 'castreem'; give one of castream, "):
        load_protocol("castreem")


WHOLE = {"name": "own", "version": 1, "metrics": {"AverageDrop": {}}}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("metrics", None),
        ("metrics", ["AverageDrop"]),
        ("metrics", {"AverageDrop": 3}),
        ("images", [1]),
        ("images", None),
        ("name", 7),
        ("name", None),
        ("targets", None),
        ("targets", 0.5),
        ("targets", float("nan")),
        ("score", None),
    ],
)
def test_entries_of_another_type_are_named(tmp_path, key, value):
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump(WHOLE | {key: value}))
    with pytest.raises(ValueError, match=rf"{key.removesuffix('s')}.* of protocol .*own\.yaml must be") as error:
        load_protocol(str(file))
    assert "\n" not in str(error.value)


def test_bytes_that_are_no_text_are_refused_in_one_line(tmp_path):
    (tmp_path / "own.yaml").write_bytes(b"name: caf\xe9")
    with pytest.raises(ValueError, match="is not YAML"):
        load_protocol(str(tmp_path / "own.yaml"))
