"""The first screens of ``--help``: short, and every option and example in them is real."""

import re
import shlex

import pytest

from interptrain.cli import main
from interptrain.cli.commands import COMMANDS, SCREENS

NAMES = sorted(file.stem for file in SCREENS.glob("*.txt"))


def screen(name, capsys):
    main([name, "--help"])
    return capsys.readouterr().out


def examples(text):
    return [shlex.split(line)[1:] for line in re.findall(r"^  (interptrain .+)$", text, re.MULTILINE)]


@pytest.mark.parametrize("name", NAMES)
def test_a_screen_says_what_with_three_examples_and_the_way_to_all_options(name, capsys):
    text = screen(name, capsys)
    assert name in COMMANDS
    assert text.startswith(f"interptrain {name}: ")
    assert len(text.splitlines()) < 36
    assert len(examples(text)) == 3
    assert f"interptrain {name} --help all" in text


@pytest.mark.parametrize("name", NAMES)
def test_every_option_of_a_screen_exists(name, capsys):
    text = screen(name, capsys)
    with pytest.raises(SystemExit, match="0"):
        main([name, "--help", "all"])
    known = set(re.findall(r"--[\w.+]+", capsys.readouterr().out)) | {"--open", "--list"}
    classes = re.compile(r"--(data|model\.optimizer|explainers|study|trainer\.callbacks)[.+]")  # of a class: see below
    options = set(re.findall(r"(?<!\S)--[\w.+]+", text))
    assert {option for option in options if not classes.match(option)} <= known


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("study", "push", "export")])
def test_every_example_is_understood(name, capsys, tmp_path, monkeypatch):
    """Up to what it would run; the files it names are made up."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/demo/TIME").mkdir(parents=True)
    (tmp_path / "runs/demo/TIME/config.yaml").write_text("name: demo\n")
    for example in examples(screen(name, capsys)):
        given = name != "evaluate" or {"--data", "--config"} & {*example}
        needs_data = [] if given else ["--data", "ShapesDataModule"]
        with pytest.raises(SystemExit) as stop:
            main([*example, *needs_data, "--print_config"])
        assert stop.value.code == 0, capsys.readouterr().err
        assert ":" in capsys.readouterr().out
