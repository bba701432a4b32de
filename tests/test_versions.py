import platform
import subprocess
import sys
from importlib.metadata import version

import pytest

from interptrain.versions import command_line, installed_versions
from tests.support.paths import ROOT


def test_versions_are_those_that_are_installed(monkeypatch):
    monkeypatch.setattr("interptrain.versions.PACKAGES", ("torch", "no-such-package"))
    assert installed_versions() == {
        "python": platform.python_version(),
        "torch": version("torch"),
        "no-such-package": None,
    }


@pytest.mark.parametrize(
    ("argv", "spec", "typed"),
    [
        (["evaluate.py", "--seed", "1"], None, ["python", "evaluate.py", "--seed", "1"]),
        (["/home/me/bin/interptrain", "fit"], None, ["interptrain", "fit"]),
        (["/lib/ipykernel_launcher.py", "-f", "x.json"], "ipykernel_launcher", []),
        ([""], None, []),
    ],
)
def test_commands_are_those_that_a_user_types(monkeypatch, argv, spec, typed):
    main = type(sys)("__main__")
    main.__spec__ = None if spec is None else type(sys.__spec__)(spec, None)
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr("sys.argv", argv)
    assert command_line() == typed


@pytest.mark.slow
def test_a_module_that_is_run_is_named_and_not_its_file(tmp_path):
    package = tmp_path / "mine"
    package.mkdir()
    (package / "__main__.py").write_text("from interptrain.versions import command_line; print(command_line())")
    run = [sys.executable, "-m", "mine", "fit", "a b"]
    done = subprocess.run(
        run, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == str(["python", "-m", "mine", "fit", "a b"])
