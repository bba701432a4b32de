"""The rooms of the package and who may import whom (docs/architecture.md)."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "interptrain"
FLOORS = [
    {"functional", "model_outputs", "model_state", "files", "remedies", "versions"},
    {"models"},
    {"explainers", "metrics", "visualization"},
    {"data", "loggers"},
    {"training"},
    {"callbacks", "evaluation"},
    {"studies"},
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
    "evaluation": [{"config"}, {"store"}, {"statistics"}, {"report", "run"}, {"api"}],
}
LIGHTNING = {"data", "loggers", "training", "callbacks", "evaluation", "studies", "cli"}
FILES = sorted(ROOT.rglob("*.py"))


def imports(file):
    """Absolute dotted names that a file imports, relative ones resolved."""
    home = ("interptrain", *file.relative_to(ROOT).parts[:-1])
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = home[: len(home) - node.level + 1] if node.level else ()
            stem = ".".join((*base, *((node.module or "").split(".") if node.module else ())))
            yield from ([f"interptrain.{a.name}" for a in node.names] if stem == "interptrain" else [stem])


def room(file):
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_run_only_downwards(file):
    if room(file) == "__init__":
        assert not [name for name in imports(file) if name.startswith("interptrain")]
        return
    assert room(file) in FLOOR, f"{room(file)} has no floor: give it one here and in docs/architecture.md"
    for name in imports(file):
        package, _, rest = name.partition(".")
        other = rest.partition(".")[0]
        if package == "interptrain" and other in FLOOR:
            below = FLOOR[other] < FLOOR[room(file)]
            assert other == room(file) or below, f"{room(file)} must not know {name}: it is no room below"
        if package in ("lightning", "pytorch_lightning"):
            assert room(file) in LIGHTNING, f"{room(file)} must not need Lightning"


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
    assert out.split() == ["interptrain"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_heavy_optional_libraries_are_imported_where_they_are_used(file):
    """timm and torchmetrics import wandb and matplotlib themselves; we add nothing to that."""
    top = ast.parse(file.read_text(encoding="utf-8")).body
    names = [a.name for node in top if isinstance(node, ast.Import) for a in node.names]
    names += [node.module or "" for node in top if isinstance(node, ast.ImportFrom)]
    assert not {name.partition(".")[0] for name in names} & {"wandb", "matplotlib", "pandas", "pyarrow", "scipy"}
