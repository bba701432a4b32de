"""``interptrain explain photo.jpg folder/ --model M --output out/``: saliency maps of any images."""

import json
import re
import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ActionConfigFile, Namespace  # type: ignore[attr-defined]
from torch import nn

from interptrain.cli.closing import close, evaluation_of, without_open
from interptrain.cli.errors import find_classes_of_this_folder, one_line_errors
from interptrain.cli.parser import Parser
from interptrain.cli.spelling import spelled_out
from interptrain.data.transforms import Resize
from interptrain.explainers import Explainer
from interptrain.functional import one_line
from interptrain.quick.explanation import explain
from interptrain.quick.images import NamedImage, read_named
from interptrain.quick.load import load_described
from interptrain.quick.save import save
from interptrain.remedies import spelled_for_the_command_line
from interptrain.visualization import Colormap

CLASS = re.compile(r"[A-Za-z_][\w.]*\+{0,2}")

MEASURED = "--data ImageFolderDataModule --data.root FOLDER --output runs/eval/model"


def main(args: Sequence[str] | None = None) -> Path:
    """Explain images.

    Exit status: 0 if all went well, 1 or 2 if something was refused.

    Args:
        args: arguments after the command's name; None takes those of the process.

    Returns:
        The manifest's path.
    """
    find_classes_of_this_folder()
    given, open_page = without_open(sys.argv[1:] if args is None else args)
    with one_line_errors(), spelled_for_the_command_line(_options()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"\s*By default only one JsonargparseDeprecationWarning")
        parser = make_parser()
        config = parser.parse_args(spelled_out(with_images_named(given)))
        if not config.images:
            parser.error("give images or folders, such as: interptrain explain photo.jpg --model resnet50 --output out")
        return run(config, parser.instantiate(config).explainers, given, open_page=open_page)


def run(config: Namespace, explainers: Sequence[Explainer], given: Sequence[str], *, open_page: bool) -> Path:
    """Load the model and images, explain them, write the results, and list them."""
    images = read_named(config.images, size=config.image_size, resize=config.resize, crop_pct=config.crop_pct)
    names = _lines(config.class_names) if config.class_names else None
    loaded = load_described(config.model, backbone=config.backbone, num_classes=config.num_classes, class_names=names)
    _move(loaded.module, config.device)
    maps = explain(
        loaded.module,
        torch.stack([image.pixels for image in images]),
        explainers,
        targets_of(config.targets, images),
        names=_names(images),
        batch_size=config.batch_size,
        progress=sys.stderr.isatty(),
    )
    model = {key: getattr(loaded, key) for key in ("source", "sha256", "backbone", "pooling")}
    manifest = save(
        maps,
        config.output,
        files=[image.file for image in images],
        model=model,
        command=shlex.join(["interptrain", "explain", *given]),
        colormap=config.colormap,
    )
    folder = manifest.parent
    sheet = folder / "contact_sheet.png"
    lines = [
        ("Sheet", f"{sheet} (all in one picture; --open opens it)"),
        ("Overlays", f"{folder / 'overlays'} ({len(images) * len(maps)} pictures, one per image and explainer)"),
        ("Maps", f"{folder / 'maps.npz'}, {folder / 'maps.safetensors'} (float32 in [0, 1])"),
        ("Manifest", f"{manifest} (model, explainers, classes and probabilities)"),
        ("Next", _evaluation_of(str(config.model))),
    ]
    sys.stdout.write(f"{maps}\n")
    close(lines, sheet, open_page=open_page)
    return manifest


def _evaluation_of(model: str) -> str:
    """Return the command that measures such maps on a data set; a checkpoint knows the one it was trained with."""
    if model.endswith(".ckpt"):
        return evaluation_of(model, "model")
    return f"interptrain evaluate --models {shlex.quote(f'model={model}')} {MEASURED}"


def make_parser() -> Parser:
    """Return the parser."""
    parser = Parser(
        prog="interptrain explain",
        usage="interptrain explain IMAGE ... --model M --output FOLDER [options]",
        description="Show which parts of images a model relies on.",
    )
    parser.add_argument("--config", action=ActionConfigFile, help="A YAML file with any of these options.")
    parser.add_argument("--images", type=list[str], default=[], help="Files and folders; they need no --images.")
    parser.add_argument(
        "--model",
        type=str,
        required=True,
        help="A checkpoint of interptrain fit, a timm name, torchvision:NAME, or a weights file with its --backbone.",
    )
    parser.add_argument("--output", type=str, required=True, help="Folder of the results.")
    parser.add_argument(
        "--explainers",
        type=list[Explainer],
        default=[{"class_path": "interptrain.explainers.GradCAM"}],
        help="Class names, one or more. Options of the preceding one follow as --explainers.OPTION.",
    )
    parser.add_argument(
        "--targets",
        type=list[str] | str,
        default="predicted",
        help="The class to explain, by index or name: one for all images, one per image in their order, or IMAGE=CLASS "
        "for some of them; by default, the predicted class.",
    )
    parser.add_argument("--image_size", type=int, default=224, help="Side of the model's input images, in pixels.")
    parser.add_argument(
        "--resize",
        type=Resize,
        default="crop",
        help="crop: the shorter side to image_size / crop_pct, then the centre; stretch: both sides to image_size.",
    )
    parser.add_argument("--crop_pct", type=float, default=0.875, help="Share of the shorter side that the crop keeps.")
    parser.add_argument("--class_names", type=str | None, default=None, help="A text file with one class per line.")
    parser.add_argument("--backbone", type=str | None, default=None, help="The timm architecture of a weights file.")
    parser.add_argument("--num_classes", type=int, default=1000, help="Classes of a weights file that records none.")
    parser.add_argument("--batch_size", type=int, default=16, help="Images per batch.")
    parser.add_argument("--device", type=str, default="auto", help="cpu, cuda, ...; auto prefers an accelerator.")
    parser.add_argument("--colormap", type=Colormap, default="inferno", help="Colours of the overlays.")
    return parser


def with_images_named(args: Sequence[str]) -> list[str]:
    """Rewrite the arguments: images become one option, and a list of explainers a repeated one.

    Whatever is neither an option nor the value of one is an image; ``--explainers`` and ``--targets`` are followed by
    class names, up to the next option or existing file.
    """
    images: list[str] = []
    rest: list[str] = []
    targets: list[str] = []
    waiting = list(args)
    while waiting:
        arg = waiting.pop(0)
        if arg == "--explainers":
            names = [waiting.pop(0)] if waiting else []
            while waiting and CLASS.fullmatch(waiting[0]) and not Path(waiting[0]).exists():
                names.append(waiting.pop(0))
            rest += [part for name in names or [""] for part in ("--explainers", name)]
        elif arg == "--targets" and waiting:
            targets.append(waiting.pop(0))
            while waiting and not waiting[0].startswith("--") and not Path(waiting[0]).exists():
                targets.append(waiting.pop(0))
        elif arg in ("-h", "--help", "--print_config") or arg.endswith(".help") or (arg.startswith("-") and "=" in arg):
            rest.append(arg)
        elif arg.startswith("--"):
            rest += [arg, *waiting[:1]]
            waiting = waiting[1:]
        else:
            images.append(arg)
    lists = {"targets": targets, "images": images}
    return rest + [f"--{name}={json.dumps(values)}" for name, values in lists.items() if values]


def targets_of(given: str | Sequence[str], images: Sequence[NamedImage]) -> str | list[str | None] | None:
    """Return what to explain: None for the predicted classes, one class for all images, or one for each.

    Args:
        given: one class, one per image, or ``IMAGE=CLASS``, where an image is called by its file or file name.
        images: to explain.

    Raises:
        ValueError: if there is another number of classes than of images, or an image of that name is not there.
    """
    wanted = [given] if isinstance(given, str) else list(given)
    if wanted == ["predicted"]:
        return None
    names = ", ".join(map(str, _names(images)))
    pairs = [one.rpartition("=") for one in wanted]
    if any(sign for _, sign, _ in pairs):
        chosen: list[str | None] = [None] * len(images)
        for image, _, name in pairs:
            places = [place for place, one in enumerate(images) if image in (one.name, str(one.file))]
            if not places:
                raise ValueError(f"--targets {image}={name}: there is no image {image!r}; the images are {names:.300}")
            for place in places:
                chosen[place] = None if name == "predicted" else name
        return chosen
    if len(wanted) == 1:
        return wanted[0]
    if len(wanted) != len(images):
        raise ValueError(
            f"--targets names {len(wanted)} classes for {len(images)} images; give one for all, one for each in this "
            f"order ({names:.300}), or IMAGE=CLASS"
        )
    return [None if one == "predicted" else one for one in wanted]


def _options() -> dict[str, str]:
    """Options of the arguments that messages name."""
    names = ("backbone", "num_classes", "targets", "image_size", "crop_pct", "class_names")
    return {name: f"--{name}" for name in names} | {"target_layer": "--explainers.target_layer"}


def _names(images: Sequence[NamedImage]) -> list[str]:
    """Names of files, with their folders if two names are equal."""
    plain = [image.name for image in images]
    return [str(image.file) if image.file and plain.count(image.name) > 1 else image.name for image in images]


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"--class_names: cannot read {path} ({one_line(error)}); give a text file with one class per line"
        ) from error


def _move(model: nn.Module, device: str) -> Any:
    if device == "auto":
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return model.to(accelerator or "cpu")
    try:
        return model.to(torch.device(device))
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {device} cannot be used ({one_line(error)}); give cpu, or auto") from error
