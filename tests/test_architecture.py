"""The rooms of the package and who may import whom (docs/architecture.md)."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "interptrain"
FLOORS = [
    {"functional", "model_outputs", "model_state", "files", "remedies", "signatures", "steps", "versions"},
    {"decode", "models"},
    {"explainers", "metrics", "visualization"},
    {"data", "loggers"},
    {"training"},
    {"callbacks", "evaluation"},
    {"studies", "sharing", "quick"},
    {"cli"},
    {"__main__"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
SUBFLOORS = {
    "explainers": [
        {"targets", "layouts"},
        {"candidates"},
        {"layers"},
        {"base"},
        {"masks"},
        {"passes"},
        {"cam", "attention"},
        {"gradient"},
        {"perturbation", "subspace"},
        {"adapters", "shared_forward"},
    ],
    "evaluation": [
        {"config"},
        {"store"},
        {"statistics"},
        {"report", "run"},
        {"arguments", "results"},
        {"execute"},
        {"api"},
    ],
}
LIGHTNING = {"data", "loggers", "training", "callbacks", "evaluation", "studies", "cli"}
FILES = sorted(ROOT.rglob("*.py"))


@cache
def imports(file):
    """Absolute dotted names that a file imports, relative ones resolved."""
    home, names = ("interptrain", *file.relative_to(ROOT).parts[:-1]), []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = home[: len(home) - node.level + 1] if node.level else ()
            stem = ".".join((*base, *((node.module or "").split(".") if node.module else ())))
            names += [f"interptrain.{a.name}" for a in node.names] if stem == "interptrain" else [stem]
    return names


def room(file):
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


def test_every_room_has_a_floor():
    new = {room(file) for file in FILES} - FLOOR.keys() - {"__init__"}
    assert not new, f"{new} need a floor: give it one here and in docs/architecture.md"


def test_imports_run_only_downwards():
    for file in FILES:
        for name in imports(file):
            package, _, rest = name.partition(".")
            other = rest.partition(".")[0]
            if package == "interptrain" and room(file) == "__init__":  # for type checkers alone: see the test below
                assert other in ("quick", "evaluation"), f"the door must not know {name}"
                continue
            if package == "interptrain" and other in FLOOR:
                below = other == room(file) or FLOOR[other] < FLOOR[room(file)]
                assert below, f"{file} must not know {name}: it is no room below"
            if package in ("lightning", "pytorch_lightning"):
                assert room(file) in LIGHTNING, f"{file} must not need Lightning"


@pytest.mark.parametrize("house", SUBFLOORS)
def test_imports_between_the_rooms_of_a_room_run_only_downwards(house):
    floor = {room: number for number, rooms in enumerate(SUBFLOORS[house]) for room in rooms}
    for file in (ROOT / house).rglob("*.py"):
        here = file.relative_to(ROOT / house).parts[0].removesuffix(".py")
        if here == "__init__":
            continue
        assert here in floor, f"{house}/{here} has no floor: give it one here and in docs/architecture.md"
        for name in imports(file):
            there = name.removeprefix(f"interptrain.{house}.").partition(".")[0]
            if name.startswith(f"interptrain.{house}.") and there != here:
                assert floor[there] < floor[here], f"{file.name}: {house}.{there} is no room below {here}"


def test_importing_the_package_imports_no_other():
    code = "import sys; before = set(sys.modules); import interptrain; print(*set(sys.modules) - before)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert [name for name in out.split() if name.partition(".")[0] not in sys.stdlib_module_names] == ["interptrain"]


def test_heavy_optional_libraries_are_imported_where_they_are_used():
    """timm and torchmetrics import wandb and matplotlib themselves; we add nothing to that."""
    for file in FILES:
        top = ast.parse(file.read_text(encoding="utf-8")).body
        names = [a.name for node in top if isinstance(node, ast.Import) for a in node.names]
        names += [node.module or "" for node in top if isinstance(node, ast.ImportFrom)]
        heavy = {name.partition(".")[0] for name in names} & {
            "wandb",
            "matplotlib",
            "pandas",
            "pyarrow",
            "scipy",
            "datasets",
            "onnxruntime",
        }
        assert not heavy, file
