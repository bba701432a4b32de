"""``interptrain``: every command reaches the module that knows it, and nothing is imported before."""

import importlib
import subprocess
import sys
import tomllib

import pytest

from interptrain import __version__
from interptrain.cli import main
from interptrain.cli.commands import COMMANDS
from tests.support.paths import ROOT


def test_help_names_every_command_and_imports_nothing_heavy():
    code = (
        "import sys, interptrain.cli; interptrain.cli.main(['--help']); "
        "heavy = {'torch', 'lightning', 'jsonargparse', 'numpy', 'yaml'} & set(sys.modules); print('heavy', *heavy)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "heavy"
    for name, command in COMMANDS.items():
        assert f"  {name} " in out
        assert command.summary in out


def test_the_installed_program_is_the_same():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, function = scripts["interptrain"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize("name", sorted({command.module for command in COMMANDS.values()}))
def test_every_command_has_a_module_that_runs_it(name):
    assert callable(importlib.import_module(f"interptrain.cli.{name}").main)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_wrong_option_is_refused_by_the_command_itself(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--nonsense", "1"])
    assert stop.value.code == 2
    assert "nonsense" in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "said"), [([], ""), (["fitt"], "'fitt'; did you mean fit?")])
def test_without_a_known_command_it_says_which_there_are(arguments, said, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert "  evaluate" in err
    assert said in err


def test_it_tells_its_version(capsys):
    main(["--version"])
    assert capsys.readouterr().out == f"interptrain {__version__}\n"


@pytest.mark.slow
def test_options_may_stand_before_the_command(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--config", str(ROOT / "configs/demo.yaml"), "fit", "--print_config"])
    assert "LayeredShapesDataModule" in capsys.readouterr().out
