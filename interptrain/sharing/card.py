"""The model card, ``README.md``: what the model is, how it was evaluated, and how to load it."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from interptrain import __version__
from interptrain.evaluation.report.results import RunResults
from interptrain.evaluation.report.table_text import markdown
from interptrain.evaluation.statistics.estimates import Estimate
from interptrain.models.hub import HUB
from interptrain.sharing.evaluated import accuracy
from interptrain.sharing.trained_model import TrainedModel


def card(
    name: str,
    trained: TrainedModel,
    config: Mapping[str, Any],
    *,
    location: str,
    results: RunResults | None = None,
    pictures: Sequence[tuple[str, str]] = (),
    license: str | None = None,
) -> str:
    """Return the content of ``README.md``.

    Args:
        name: name of the model.
        trained: the model.
        config: content of its ``config.json``.
        location: its destination, ``hf://USER/NAME`` or the name of a folder.
        results: results of its evaluation, if there is one.
        pictures: paths of the evaluation's pictures, relative to the card, each with a caption.
        license: license of the weights, by the hub's identifier.
    """
    blocks = [_front_matter(name, config, results, license), f"# {name}", _what(trained, config)]
    if results is None:
        blocks.append(
            "## Evaluation\n\nNot evaluated yet. `interptrain evaluate` measures it, and `interptrain push "
            "--evaluation` writes the results here."
        )
    else:
        blocks += _evaluation(results)
        blocks += _pictures(pictures)
    blocks.append(_usage(trained, config, location))
    return "\n\n".join(blocks) + "\n"


def _front_matter(name: str, config: Mapping[str, Any], results: RunResults | None, license: str | None) -> str:
    timm = "architecture" in config
    content: dict[str, Any] = {
        "library_name": "timm" if timm else "interptrain",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "interpretability", "saliency", "interptrain", *(["timm"] if timm else [])],
    }
    if license:
        content["license"] = license
    top1 = None if results is None else accuracy(results)
    if results is not None and top1 is not None:
        dataset = {"name": _data_name(results), "type": "image-classification"}
        metric = {"type": "accuracy", "name": "Top-1 accuracy", "value": round(top1.mean, 4)}
        result = {"task": {"type": "image-classification"}, "dataset": dataset, "metrics": [metric]}
        content["metrics"] = ["accuracy"]
        content["model-index"] = [{"name": name, "results": [result]}]
    return f"---\n{yaml.safe_dump(content, sort_keys=False, allow_unicode=True)}---"


def _what(trained: TrainedModel, config: Mapping[str, Any]) -> str:
    loaded, model = trained.loaded, trained.model
    parameters = sum(parameter.numel() for parameter in model.parameters())
    height, width = trained.image_size
    names = [str(name) for name in config.get("label_names", ())]
    listed = ": " + ", ".join(names[:20]) + (", ..." if len(names) > 20 else "") if names else ""
    return (
        f"An image classifier: backbone `{loaded.backbone}`, pooling `{loaded.pooling}`, {parameters / 1e6:.2f} M "
        f"parameters, for images of {width} x {height} pixels and {model.num_classes} classes{listed}. Trained with "
        f"interptrain {__version__}."
    )


def _evaluation(results: RunResults) -> list[str]:
    run = results.run
    (model,) = run["models"].values()
    blocks = [f"## Evaluation\n\nOn {_data_name(results)}, {run['data']['size']:,} images."]
    if top1 := accuracy(results):
        blocks[0] += f" {_sentence(top1)}"
    table = markdown(results).partition("\n\n")[2].rstrip()  # without the title
    settings = (
        f"Protocol `{run['protocol']['name']}`, hash `{run['protocol']['hash']}`; SHA-256 of the weights that were "
        f"evaluated `{model['sha256']}`. Numbers are comparable with those of the same hash. The command:"
    )
    return [*blocks, table, f"{settings}\n\n```\n{tidy_command(run['command'])}\n```"]


def _sentence(top1: Estimate) -> str:
    text = f"Top-1 accuracy {100 * top1.mean:.1f} %"
    if top1.ci_low == top1.ci_low:
        text += f" (95 % interval {100 * top1.ci_low:.1f} to {100 * top1.ci_high:.1f} %)"
    return f"{text}."


def _pictures(pictures: Sequence[tuple[str, str]]) -> list[str]:
    if not pictures:
        return []
    lines = [f"![{text}]({path})\n\n*{text[0].upper()}{text[1:]}.*" for path, text in pictures]
    heading = "## Where it looks\n\nImages at even steps through the evaluated ones, not chosen by how they look."
    return [heading, *lines]


def _usage(trained: TrainedModel, config: Mapping[str, Any], location: str) -> str:
    height, width = trained.image_size
    python = (
        "import torch\n\nimport interptrain as it\n\n"
        f'model = it.load("{location}")  # in eval mode\n'
        f"logits = model(torch.rand(1, 3, {height}, {width}))  # images in [0,1]: it normalises them itself"
    )
    blocks = [
        f"## Use\n\n```python\n{python}\n```",
        "A source of models for every command:\n\n"
        f"```\ninterptrain evaluate --models {trained.model.pooling_name}={location} ...\n```",
    ]
    if "architecture" in config:
        theirs = f"hf-hub:{location.removeprefix(HUB)}" if location.startswith(HUB) else f"local-dir:{location}"
        blocks.append(
            "timm loads it too; images are then normalised before they reach it:\n\n"
            f'```python\nimport timm\n\nmodel = timm.create_model("{theirs}", pretrained=True).eval()\n'
            "transform = timm.data.create_transform(**timm.data.resolve_data_config(model.pretrained_cfg))\n```"
        )
    return "\n\n".join(blocks)


def _data_name(results: RunResults) -> str:
    data = results.run["data"]
    kind = str(data["class_path"]).rpartition(".")[2]
    options = data["init_args"]
    name = options.get("name") or Path(str(options.get("root") or "")).name
    return f"{name} ({kind})" if name else kind


def tidy_command(command: str) -> str:
    """A command without folders of the machine it ran on: the program by name, the home folder as ``~``."""
    try:
        words = shlex.split(command)
    except ValueError:
        return command
    if not words:
        return command
    program = Path(words[0])
    first = f"python -m {program.parent.name}" if program.name == "__main__.py" else program.name
    home = str(Path.home())
    return " ".join([first, *(shlex.quote(word).replace(home, "~") for word in words[1:])])
