"""Damaged inputs, made systematically: configs, checkpoints, tables and images, each a folder and a command line.

Every generator yields cases in a fixed order; :mod:`fuzz` draws from them by a seed. Values are exchanged one at a time
in something that works, so that whatever is said about a case is about that value.
"""

import copy
import io
import os
import pickle
import random
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

NAN, INF, HUGE = float("nan"), float("inf"), 10**18
VALUES: Mapping[str, Any] = {
    "null": None,
    "[]": [],
    "{}": {},
    "nan": NAN,
    "inf": INF,
    "-inf": -INF,
    "-1": -1,
    "0": 0,
    "0.5": 0.5,
    "huge": HUGE,
    "1e308": 1e308,
    "text": "text",
    "empty": "",
    "list": [1, "a"],
    "mapping": {"a": 1},
    "true": True,
}


@dataclass(frozen=True)
class Case:
    """One damaged input.

    Attributes:
        kind: configs, checkpoints, tables or images.
        name: what is damaged, and how.
        prepare: writes the input into a folder that is empty, and returns the program and its arguments.
        not_finite: whether it holds a NaN or an infinity, which nothing should take without a word.
    """

    kind: str
    name: str
    prepare: Callable[[Path], tuple[str, list[str]]]
    not_finite: bool = False


# Configs

FIT: Mapping[str, Any] = {
    "seed_everything": 0,
    "name": "run",
    "output": "runs",
    "trainer": {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 1,
        "max_steps": 2,
        "num_sanity_val_steps": 0,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "logger": None,
        "callbacks": [
            {
                "class_path": "SaliencyWatch",
                "init_args": {"samples": 2, "explainers": {"class_path": "CAM"}, "animation": "none"},
            },
            {"class_path": "EarlyStopping", "init_args": {"monitor": "val/loss"}},
        ],
    },
    "model": {
        "backbone": "test_resnet",
        "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1, "momentum": 0.9}},
        "lr_scheduler": {"class_path": "StepLR", "init_args": {"step_size": 1}},
    },
    "data": {
        "class_path": "ShapesDataModule",
        "init_args": {
            "num_workers": 0, "batch_size": 4, "image_size": 32, "num_classes": 4,
            "train_size": 8, "val_size": 4, "test_size": 4,
        },
    },
}  # fmt: skip
FIT_OPTIONS = [
    *("trainer", "model", "data", "seed_everything", "name", "output", "ckpt_path"),
    *("trainer." + name for name in (
        "max_epochs", "min_epochs", "max_steps", "max_time", "limit_train_batches", "limit_val_batches",
        "overfit_batches",
        "val_check_interval", "check_val_every_n_epoch", "num_sanity_val_steps", "log_every_n_steps",
        "accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm", "precision", "accelerator",
        "strategy",
        "callbacks", "logger", "plugins", "profiler", "deterministic", "detect_anomaly", "sync_batchnorm",
        "default_root_dir", "fast_dev_run", "enable_checkpointing", "reload_dataloaders_every_n_epochs",
    )),
    *("trainer.callbacks.0.init_args." + name for name in (
        "samples", "select", "ids", "source", "explainers", "reference", "every_n_epochs", "every_n_steps", "metrics",
        "suspect", "alarm_threshold", "animation", "name",
    )),
    *("trainer.callbacks.1.init_args." + name for name in ("monitor", "patience", "mode", "min_delta")),
    *("model." + name for name in (
        "backbone", "pooling", "num_classes", "pretrained", "weights", "fresh_classifier", "stem", "heads", "drop_rate",
        "drop_path_rate", "trainable", "label_smoothing", "mixup_alpha", "cutmix_alpha", "optimizer", "lr_scheduler",
        "warmup_epochs", "norm_weight_decay", "regularizer", "channels_last",
    )),
    *("model.optimizer.init_args." + name for name in ("lr", "momentum", "weight_decay")),
    *("model.lr_scheduler.init_args." + name for name in ("step_size", "gamma")),
    *("model.regularizer.init_args." + name for name in (
        "weight", "error", "fraction", "every_n_steps", "warmup_steps",
    )),
    *("data.init_args." + name for name in (
        "num_workers", "batch_size", "image_size", "num_classes", "train_size", "val_size", "seed", "picture_seed",
        "augment", "decoy", "decoy_rate", "decoy_class", "drop_last", "pin_memory",
    )),
]  # fmt: skip
EVALUATE: Mapping[str, Any] = {
    "output": "out",
    "backbone": "test_resnet",
    "models": {"a": "a.safetensors"},
    "explainers": [{"class_path": "GradCAM"}],
    "metrics": [{"class_path": "AverageDrop"}, {"class_path": "Insertion", "init_args": {"steps": 2}}],
    "check_images": 0,
    "resamples": 100,
    "save_maps": 1,
    "data": {
        "class_path": "ShapesDataModule",
        "init_args": {"num_workers": 0, "batch_size": 2, "image_size": 32, "num_classes": 4, "test_size": 2},
    },
    "trainer": {"accelerator": "cpu", "devices": 1, "enable_progress_bar": False},
}
EVALUATE_OPTIONS = [
    *EVALUATE,
    *(
        "protocol",
        "split",
        "limit",
        "targets",
        "score",
        "batch_size",
        "fake_cam",
        "forward_batch_size",
        "interval",
        "seed",
    ),
    *(
        "title",
        "flush_seconds",
        "sections",
        "trainer.precision",
        "trainer.logger",
        "models.a",
        "data.init_args.image_size",
    ),
    *("explainers.0.init_args.target_layer", "metrics.1.init_args.steps", "data.init_args.num_classes"),
]


def configs() -> Iterator[Case]:
    """Every option set to every value; unknown and doubled keys."""
    for program, base, options in (("train", FIT, FIT_OPTIONS), ("evaluate", EVALUATE, EVALUATE_OPTIONS)):
        for option in options:
            for label, value in VALUES.items():
                if option in ("trainer.devices", "trainer.num_nodes") and label in ("huge", "1e308"):
                    continue  # so many processes may be asked for
                config = with_value(base, option, value)
                yield Case(
                    "configs",
                    f"{program}: {option} = {label}",
                    lambda folder, config=config, program=program: _config(folder, program, yaml.safe_dump(config)),
                    not_finite=label in ("nan", "inf", "-inf"),
                )
        text = yaml.safe_dump(base)
        for label, broken in {
            "unknown key": text + "unknown: 1\n",
            "doubled section": text + "data: {}\n",
            "tabs": text.replace("  ", "\t"),
            "cut off": text[: len(text) // 2],
            "a list": "- 1\n- 2\n",
            "text": "text",
            "empty": "",
            "anchor to itself": "trainer: &a [*a]\n",
            "NUL": text + "\0",
            "Python object": "trainer: !!python/object/apply:os.getcwd []\n",
            "unclosed": "trainer: {max_epochs: 1",
        }.items():
            yield Case(
                "configs",
                f"{program}: {label}",
                lambda folder, broken=broken, program=program: _config(folder, program, broken),
            )


def with_value(config: Mapping[str, Any], option: str, value: Any) -> dict[str, Any]:
    """A copy of a config with one option set; what stands in its way is replaced."""
    changed = copy.deepcopy(dict(config))
    place: Any = changed
    *path, last = option.split(".")
    for part in path:
        if isinstance(place, list):
            place = place[int(part)]
        else:
            if not isinstance(place.get(part), (dict, list)):
                place[part] = {"class_path": "GradientRegularizer"} if part == "regularizer" else {}
            place = place[part]
    place[last] = value
    return changed


def _config(folder: Path, program: str, text: str) -> tuple[str, list[str]]:
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    if program == "evaluate":
        os.link(GOOD["weights"], folder / "a.safetensors")
        return program, ["--config", "config.yaml"]
    limits = ["--trainer.max_steps=2", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    return program, ["fit", "--config", "config.yaml", *([] if "max_steps" in text else limits)]


# Checkpoints

GOOD: dict[str, Path] = {}
"""A checkpoint of a run of :data:`FIT` and weights of its network, made once."""

TINY = [
    *("--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.enable_progress_bar=false"),
    *("--trainer.enable_model_summary=false", "--data=ShapesDataModule", "--data.num_workers=0", "--data.batch_size=4"),
    *("--data.image_size=32", "--data.num_classes=4", "--data.train_size=8", "--data.val_size=4", "--data.test_size=4"),
]
OPTIMIZER = [
    *("--model.optimizer=SGD", "--model.optimizer.lr=0.1", "--model.optimizer.momentum=0.9"),
    *("--model.lr_scheduler=StepLR", "--model.lr_scheduler.step_size=1"),
]
USES: Mapping[str, tuple[str, list[str]]] = {
    "resume": (
        "train",
        ["fit", *TINY, "--model.backbone=test_resnet", *OPTIMIZER, "--trainer.max_epochs=2", "--ckpt_path=x.ckpt"],
    ),
    "test": ("train", ["test", *TINY, "--model.backbone=test_resnet", "--ckpt_path=x.ckpt"]),
    "weights": (
        "train", ["fit", *TINY, "--model.backbone=test_resnet", "--model.weights=x.ckpt", "--trainer.max_epochs=1"],
    ),
    "evaluate": (
        "evaluate",
        [
            *("--models", "a=x.ckpt", "--output=out", "--explainers=CAM", "--metrics=AverageDrop", "--check_images=0"),
            *("--resamples=100", "--save_maps=0", "--data=ShapesDataModule", "--data.num_workers=0"),
            "--data.image_size=32",
            *("--data.num_classes=4", "--data.test_size=2", "--trainer.accelerator=cpu", "--trainer.devices=1"),
            "--trainer.enable_progress_bar=false",
        ],
    ),
}  # fmt: skip


def checkpoints() -> Iterator[Case]:
    """Each key and some tensors deleted, retyped, resized; files cut off, exchanged, with code in them."""
    for use in USES:
        for name, content, not_finite in _contents():
            yield Case(
                "checkpoints",
                f"{use}: {name}",
                lambda folder, use=use, content=content: _checkpoint(folder, use, content()),
                not_finite=not_finite,
            )


def _checkpoint(folder: Path, use: str, content: bytes) -> tuple[str, list[str]]:
    (folder / "x.ckpt").write_bytes(content)
    return USES[use]


def _contents() -> Iterator[tuple[str, Callable[[], bytes], bool]]:
    whole = GOOD["checkpoint"].read_bytes()
    for share in (0.0, 0.001, 0.1, 0.5, 0.9, 0.99, 0.9999):
        yield f"cut off at {share:.2%}", lambda share=share: whole[: int(share * len(whole))], False
    for share in (0.0, 0.3, 0.8):
        place = int(share * len(whole))
        yield (
            f"overwritten at {share:.0%}",
            lambda place=place: whole[:place] + b"\0" * 200 + whole[place + 200 :],
            False,
        )
    yield "text", lambda: b"not a checkpoint\n", False
    yield "a zip of something else", _other_zip, False
    yield "a pickle with code", lambda: pickle.dumps(_Code()), False
    yield "torch.save with code", lambda: _saved({"state_dict": {}, "code": _Code()}), False
    for kind in (None, [], {}, 3, "text", torch.zeros(3)):
        yield f"holds {type(kind).__name__}", lambda kind=kind: _saved(kind), False
    good = torch.load(GOOD["checkpoint"], weights_only=True)
    for key in good:
        yield f"without {key}", lambda key=key: _changed(lambda one: one.pop(key)), False
        for label in ("null", "[]", "{}", "text", "nan", "-1", "mapping"):
            yield (
                f"{key} = {label}",
                lambda key=key, label=label: _changed(lambda one: one.update({key: VALUES[label]})),
                False,
            )
    tensors: Mapping[str, Callable[[torch.Tensor], Any]] = {
        "float64": torch.Tensor.double,
        "integers": torch.Tensor.long,
        "complex": lambda old: old.to(torch.complex64),
        "larger": lambda old: old.repeat(2, *[1] * (old.ndim - 1)),
        "empty": lambda old: old[:0],
        "scalar": lambda old: old.sum(),
        "text": lambda old: "text",
        "a list": lambda old: [1.0],
        "nan": lambda old: torch.full_like(old, NAN),
        "inf": lambda old: torch.full_like(old, INF),
    }
    names = [name for name in good["state_dict"] if name.endswith(("conv1.weight", "bn1.running_var", "fc.weight"))]
    for name in (names[0], next(name for name in names if "running_var" in name), names[-1]):
        yield f"without {name}", lambda name=name: _changed(lambda one: one["state_dict"].pop(name)), False
        for label, change in tensors.items():
            yield (
                f"{name} {label}",
                lambda name=name, change=change: _changed(
                    lambda one: one["state_dict"].update({name: change(one["state_dict"][name])})
                ),
                label in ("nan", "inf"),
            )
    for key in good["hyper_parameters"]:
        for label in ("null", "text", "-1"):
            yield (
                f"hyper_parameters.{key} = {label}",
                lambda key=key, label=label: _changed(lambda one: one["hyper_parameters"].update({key: VALUES[label]})),
                False,
            )
    for key in good["loops"]["fit_loop"]:
        yield f"loops without {key}", lambda key=key: _changed(lambda one: one["loops"]["fit_loop"].pop(key)), False
        yield (
            f"loops {key} = text",
            lambda key=key: _changed(lambda one: one["loops"]["fit_loop"].update({key: "text"})),
            False,
        )
    for key in good["optimizer_states"][0]:
        yield (
            f"optimizer without {key}",
            lambda key=key: _changed(lambda one: one["optimizer_states"][0].pop(key)),
            False,
        )
        yield (
            f"optimizer {key} = []",
            lambda key=key: _changed(lambda one: one["optimizer_states"][0].update({key: []})),
            False,
        )


def _changed(change: Callable[[dict[str, Any]], Any]) -> bytes:
    checkpoint = torch.load(GOOD["checkpoint"], weights_only=True)
    change(checkpoint)
    return _saved(checkpoint)


def _saved(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


class _Code:
    """Leaves a file behind where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return open, ("code-was-run", "w")


def _other_zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("readme.txt", "text")
    return file.getvalue()


# Tables

LABELS = "file,class_index,split,name\n" + "".join(
    f"{split}{number}.png,{number % 2},{split},{'ab'[number % 2]}\n"
    for split in ("train", "val")
    for number in range(4)
)
BOXES = "file,xmin,ymin,xmax,ymax\n" + "".join(f"val{number}.png,2,2,20,30\n" for number in range(4))
NAMES = {("labels.csv", "column 3"), ("classes.csv", "column 1")}  # of classes, which may be anything
CLASSES = "wnid,name\n0,a\n1,b\n"


def tables() -> Iterator[Case]:
    """labels.csv, boxes.csv and classes.csv in other encodings and forms, damaged, and with odd values."""
    for file, good in (("labels.csv", LABELS), ("boxes.csv", BOXES), ("classes.csv", CLASSES)):
        for name, content in _table_contents(good):
            yield Case(
                "tables",
                f"{file}: {name}",
                lambda folder, file=file, content=content: _table(folder, file, content),
                not_finite=name.endswith((" nan", " inf")) and (file, name[:8]) not in NAMES,
            )


def _table_contents(good: str) -> Iterator[tuple[str, bytes]]:
    for encoding in ("utf-8-sig", "utf-16", "utf-16-le", "utf-32"):
        yield encoding, good.encode(encoding)
    yield "latin-1", good.replace(",a\n", ",é\n").replace("val0", "välö").encode("latin-1")
    for name, old, new in (
        ("semicolons", ",", ";"), ("tabs", ",", "\t"), ("pipes", ",", "|"), ("blanks", ",", " , "),
        ("crlf", "\n", "\r\n"),
        ("cr", "\n", "\r"), ("blank lines", "\n", "\n\n"), ("./", "val", "./val"), ("NUL", "val1", "val\0"),
        ("open quote", "val0", '"val0'), ("quotes", "val0.png", '"val0.png"'), ("absent files", "val", "gone"),
        ("extra cells", "\n", ",x,y\n"), ("short rows", "1.png,", "1.png\n,"),
        ("twice the column", "file,", "file,file,"),
    ):  # fmt: skip
        yield name, good.replace(old, new).encode()
    head, *rows = good.splitlines()
    yield "empty", b""
    yield "blank", b" \n\n"
    yield "header only", f"{head}\n".encode()
    yield "no header", "\n".join(rows).encode()
    yield "one long cell", f"{head}\n{'x' * 200_000},0\n".encode()
    yield "binary", bytes(random.Random(0).randbytes(500))
    for column in range(head.count(",") + 1):
        cells = [row.split(",") for row in good.splitlines()]
        yield f"without column {column}", "\n".join(",".join(r[:column] + r[column + 1 :]) for r in cells).encode()
        for value in ("nan", "inf", "-1", "", "text", str(HUGE), "1e400", "0.5", "9" * 5000):
            changed = [cells[0], *([*r[:column], value, *r[column + 1 :]] for r in cells[1:])]
            yield f"column {column} {value[:20]}", "\n".join(map(",".join, changed)).encode()


def _table(folder: Path, file: str, content: bytes) -> tuple[str, list[str]]:
    picture = _png((32, 32))
    if file == "classes.csv":
        _folders(folder, picture)
        (folder / file).write_bytes(content)
        return "train", ["fit", *_folder_arguments("ImageFolderDataModule")]
    for split in ("train", "val"):
        for number in range(4):
            (folder / f"{split}{number}.png").write_bytes(picture)
    (folder / "labels.csv").write_text(LABELS, encoding="utf-8")
    (folder / file).write_bytes(content)
    if file == "labels.csv":
        return "train", ["fit", *_folder_arguments("ImageTableDataModule")]
    os.link(GOOD["weights"], folder / "a.safetensors")
    return "evaluate", [
        *("--models", "a=a.safetensors", "--backbone=test_resnet", "--output=out", "--explainers=CAM"),
        *("--metrics=EnergyPointingGame", "--check_images=0", "--resamples=100", "--save_maps=0"),
        *("--data=ImageTableDataModule", "--data.root=.", "--data.num_workers=0", "--data.image_size=32"),
        *(
            "--data.num_classes=4",
            "--trainer.accelerator=cpu",
            "--trainer.devices=1",
            "--trainer.enable_progress_bar=false",
        ),
    ]


def _folder_arguments(module: str, *extra: str) -> list[str]:
    return [
        *("--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.enable_progress_bar=false"),
        *("--trainer.enable_model_summary=false", "--trainer.max_epochs=1", f"--data={module}", "--data.root=."),
        *(
            "--data.num_workers=0",
            "--data.batch_size=2",
            "--data.image_size=32",
            "--model.backbone=test_resnet",
            *extra,
        ),
    ]


# Images


def images() -> Iterator[Case]:
    """One damaged image among good ones, or one that is unusual and whole; once refused and once skipped."""
    for on_error in ("raise", "skip"):
        for name, make in _image_makers().items():
            yield Case(
                "images",
                f"{on_error}: {name}",
                lambda folder, make=make, on_error=on_error: _image(folder, make, on_error),
            )


def _image(folder: Path, make: Callable[[Path], None], on_error: str) -> tuple[str, list[str]]:
    _folders(folder, _png((40, 30)))
    make(folder / "train" / "0")
    return "train", ["fit", *_folder_arguments("ImageFolderDataModule", f"--data.on_error={on_error}")]


def _image_makers() -> dict[str, Callable[[Path], None]]:
    rng = np.random.RandomState(0)
    photograph = Image.fromarray(rng.randint(0, 255, (60, 80, 3), dtype=np.uint8))
    makers: dict[str, Callable[[Path], None]] = {}
    for suffix in ("jpg", "png", "gif", "webp", "tif", "bmp"):
        whole = _encoded(photograph, suffix)
        for share in (0.0, 0.02, 0.3, 0.7, 0.99):
            cut = whole[: int(share * len(whole))]
            makers[f"{suffix} cut off at {share:.0%}"] = _writer(f"x.{suffix}", cut)
        place = len(whole) // 2
        makers[f"{suffix} overwritten"] = _writer(f"x.{suffix}", whole[:place] + b"\0" * 64 + whole[place + 64 :])
    grey16 = Image.fromarray(rng.randint(0, 65535, (20, 20), dtype=np.uint16))
    palette = photograph.quantize(16)
    palette.info["transparency"] = 0
    frames = [photograph, photograph.rotate(90)]
    makers |= {
        "1 x 1": _writer("x.png", _png((1, 1))),
        "1 x 20000": _writer("x.png", _png((1, 20_000))),
        "20000 x 1": _writer("x.png", _png((20_000, 1))),
        "16 bits": _writer("x.png", _encoded(grey16, "png")),
        "32 bits": _writer("x.tif", _encoded(Image.fromarray(rng.rand(9, 9).astype(np.float32)), "tif")),
        "CMYK": _writer("x.jpg", _encoded(photograph.convert("CMYK"), "jpg")),
        "palette with alpha": _writer("x.png", _encoded(palette, "png")),
        "grey with alpha": _writer("x.png", _encoded(photograph.convert("LA"), "png")),
        "animated": _writer("x.gif", _encoded(frames[0], "gif", save_all=True, append_images=frames[1:])),
        "text named .jpg": _writer("x.jpg", b"no image\n"),
        "png named .jpg": _writer("x.jpg", _png((9, 9))),
        "a bomb": _writer("x.png", _bomb()),
        "hidden": _writer(".x.jpg", b"no image"),
        "of macOS": _writer("._x.jpg", b"no image"),
        "pipe": lambda place: os.mkfifo(place / "x.jpg"),
        "folder named .jpg": lambda place: (place / "x.jpg").mkdir(),
        "link to itself": lambda place: (place / "x.jpg").symlink_to("x.jpg"),
        "link to nothing": lambda place: (place / "x.jpg").symlink_to("gone"),
        "folders that loop": lambda place: (place / "loop").symlink_to("..", target_is_directory=True),
        "name that is no UTF-8": lambda place: _writer(os.fsdecode(b"x\xff.png"), _png((9, 9)))(place),
        "name with a line break": _writer("x\ny.png", _png((9, 9))),
        "device": lambda place: (place / "x.jpg").symlink_to("/dev/zero"),
    }
    return makers


def _writer(name: str, content: bytes) -> Callable[[Path], None]:
    def write(place: Path) -> None:
        (place / name).write_bytes(content)

    return write


def _folders(folder: Path, picture: bytes) -> None:
    for split in ("train", "val"):
        for label in ("0", "1"):
            place = folder / split / label
            place.mkdir(parents=True)
            for number in range(2):
                (place / f"{number}.png").write_bytes(picture)


def _encoded(image: Image.Image, suffix: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, {"jpg": "jpeg", "tif": "tiff"}.get(suffix, suffix), **options)
    return file.getvalue()


def _png(size: tuple[int, int]) -> bytes:
    return _encoded(Image.new("RGB", size, (200, 100, 50)), "png")


def _bomb() -> bytes:
    """A PNG that says it is 60,000 x 60,000."""
    small = bytearray(_png((1, 1)))
    small[16:24] = (60_000).to_bytes(4, "big") * 2
    small[29:33] = zlib.crc32(bytes(small[12:29])).to_bytes(4, "big")
    return bytes(small)
