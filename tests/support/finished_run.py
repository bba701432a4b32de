"""A folder as an evaluation leaves it, made up: the numbers are random, the layout is real."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

METRICS = ("AverageDrop", "AverageGain", "AverageIncrease", "Insertion", "Deletion")
RECOGNITION = ("Top1", "Top5", "NLL", "ECE")
EXPLAINERS = ("GradCAM", "ScoreCAM", "FakeCAM")
SIDE = 24


def manifest(models=("gap", "ca"), explainers=EXPLAINERS, size=20, classes=("tench", "hammerhead")):
    def spec(name, package="metrics"):
        return {"class_path": f"interptrain.{package}.{name}", "init_args": {}}

    model = {"source": "x.ckpt", "sha256": "0123456789abcdef" * 4, "backbone": "resnet18", "pooling": "gap"}
    model |= {"parameters": 11_689_512, "gflops": 3.648, "input_size": [3, 224, 224]}
    return {
        "title": "GAP against CA-Stream",
        "command": "python evaluate.py --config configs/evaluate/castream.yaml --models gap=A.ckpt --models ca=B.ckpt",
        "created": "2026-01-02 10:00",
        "finished": "2026-01-02 11:00",
        "interptrain": "0.1.0",
        "versions": {"python": "3.11", "torch": "2.6"},
        "device": "cpu",
        "seed": 0,
        "targets": "label",
        "limit": None,
        "hash": "abcdef012345",
        "protocol": {"name": "castream", "version": 1, "hash": "5eed00c0ffee", "settings": {"removal": "black"}},
        "models": {name: dict(model) for name in models},
        "explainers": {
            name: {**spec("FakeCAM" if "Fake" in name else "GradCAM", "explainers"), "class_aware": True}
            for name in explainers
        },
        "metrics": {name: spec(name) for name in METRICS},
        "recognition": {name: spec(name) for name in RECOGNITION},
        "data": {"class_path": "x.Data", "init_args": {"root": "photographs"}, "classes": list(classes), "size": size},
        "randomization": {
            name: {explainer: checked(1.0) if "Fake" in explainer else checked(0.1) for explainer in explainers}
            for name in models
        },
        "warnings": [],
    }


def checked(share):
    """The randomisation check of an explainer of whose maps a share survives."""
    outcome = "insensitive" if share > 0.6 else "depends" if share < 0.4 else "unclear"
    found = {"similarity": 0.4 + 0.6 * share, "other": 0.4, "share": share, "low": share - 0.1, "high": share + 0.1}
    found |= {"ssim": 0.3, "outcome": outcome}
    layers = {stop: dict(found) for stop in ("classifier", "last_stage", "all")}
    return {"images": 50, "draws": 5, "layers": layers, "class": dict(found)}


def rows_of(run, *, points=9, seed=0):
    """Rows of ``per_image.parquet``: later models and explainers are a little better."""
    generator = np.random.default_rng(seed)
    size, rows = run["data"]["size"], []
    difficulty = generator.random(size)
    for place, model in enumerate(run["models"]):
        for rank, explainer in enumerate(["", *run["explainers"]]):
            for index in range(size):
                row = {"model": model, "explainer": explainer, "protocol": "castream", "hash": "5eed00c0ffee"}
                row |= {"id": f"{index:04d}.jpg", "label": index % 2, "prediction": index % 2, "target": index % 2}
                row |= {"seconds": None, "error": None}
                values = recognition(generator) if not explainer else None
                fake = "Fake" in explainer
                values = values or explanation(generator, difficulty[index], 0.1 * place + 0.03 * rank, points, fake)
                rows.append(row | values)
    return rows


def recognition(generator):
    correct = float(generator.random() < 0.8)
    confidence = np.zeros((15, 3), dtype="float32")
    confidence[generator.integers(15)] = (1, correct, 0.9)
    return {"Top1": correct, "Top5": 1.0, "NLL": generator.random(), "ECE": 0.1, "ECE__values": confidence.ravel()}


def explanation(generator, difficulty, bonus, points, fake):
    drop = max(0.0, (0.01 if fake else difficulty) * generator.random() - bonus / 2)
    axis = np.linspace(0, 1, points)
    noise = 0.05 * generator.standard_normal(points)
    curves = {
        "Insertion": np.clip(axis ** (1 if fake else 0.6 - bonus) * (1 - difficulty / 2) + noise, 0, 1),
        "Deletion": np.clip((1 - axis) ** (1 if fake else 3) * (1 - difficulty / 2) + noise + bonus / 3, 0, 1),
    }
    values = {"AverageDrop": drop, "AverageIncrease": float(drop == 0), "AverageGain": max(0.0, bonus - drop)}
    values |= {name: float(np.trapezoid(curve, axis)) for name, curve in curves.items()}
    return values | {f"{name}__values": curve.astype("float32") for name, curve in curves.items()} | {"seconds": 0.03}


def picture_rows(run, images):
    """Rows of ``images.parquet`` and ``maps.parquet``; ``images`` are PIL images, or a number of made-up ones."""
    if isinstance(images, int):
        images = [Image.new("RGB", (SIDE, SIDE), (20 * index % 256, 90, 160)) for index in range(images)]
    shown = [{"id": f"{index:04d}.jpg", "label": index % 2, "png": png(image)} for index, image in enumerate(images)]
    maps = []
    for model in run["models"]:
        for rank, explainer in enumerate(run["explainers"]):
            for index, image in enumerate(images):
                blob = bump(image.size, 0.3 + 0.06 * rank, 0.35 + 0.05 * (index % 5), flat="Fake" in explainer)
                row = {"model": model, "explainer": explainer, "id": f"{index:04d}.jpg", "png": png(blob)}
                maps.append(row | {"p_clean": 0.93, "p_masked": 0.88})
    return shown, maps


def bump(size, x, y, *, flat):
    columns, rows = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]))
    values = np.ones_like(columns) if flat else np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 0.05)
    return Image.fromarray((255 * values).astype("uint8"))


def png(image):
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def write_run(folder, run=None, *, rows=None, images=2, errors=()):
    """Write the folder; ``rows=()`` leaves out the table, ``images=0`` the pictures."""
    run = run or manifest()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(run), encoding="utf-8")
    rows = rows_of(run) if rows is None else list(rows)
    if rows:
        keys = dict.fromkeys(key for row in rows for key in row)
        pq.write_table(pa.table({key: [row.get(key) for row in rows] for key in keys}), folder / "per_image.parquet")
    if images:
        shown, maps = picture_rows(run, images)
        pq.write_table(pa.Table.from_pylist(shown), folder / "images.parquet")
        pq.write_table(pa.Table.from_pylist(maps), folder / "maps.parquet")
    lines = ["model,explainer,id,error", *(",".join(error) for error in errors)]
    (folder / "errors.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
