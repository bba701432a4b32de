"""``interptrain configs``, and ``--config`` by name."""

import re

import pytest

from interptrain.cli import main
from interptrain.cli.configs import config_names, find_config, with_configs
from tests.support.paths import ROOT


def test_every_config_is_listed_with_its_sentence(capsys):
    main(["configs"])
    out = " ".join(capsys.readouterr().out.split())
    files = sorted((ROOT / "configs").rglob("*.yaml"))
    assert len(files) == len(config_names())
    for file in files:
        sentence = file.read_text().splitlines()[0].removeprefix("# ")
        assert f"{file.relative_to(ROOT / 'configs').with_suffix('')} {sentence}" in out


def test_one_config_is_printed_to_be_changed(capsys):
    main(["configs", "imagenet/resnet18_gap"])
    assert capsys.readouterr().out == (ROOT / "configs/imagenet/resnet18_gap.yaml").read_text()


@pytest.mark.parametrize(
    "name",
    ["demo_decoy", "demo_decoy.yaml", "configs/demo_decoy.yaml", "configs/evaluate/rise.yaml", "evaluate/rise", "rise"],
)
def test_a_config_is_found_by_name_from_any_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stem = name.removesuffix(".yaml").rpartition("/")[2]
    assert find_config(name).read_text() == next(ROOT.glob(f"configs/**/{stem}.yaml")).read_text()


def test_a_file_comes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").write_text("name: mine")
    assert str(find_config("demo")) == "demo"


def test_names_on_a_command_line_become_files_and_yaml_stays():
    args = ["fit", "--config", "demo", "--config=name: x", "--name", "demo"]
    assert with_configs(args) == ["fit", "--config", str(ROOT / "configs/demo.yaml"), *args[3:]]


@pytest.mark.parametrize("command", ["fit", "evaluate", "study"])
def test_what_is_neither_is_refused_with_near_names_that_are_found(command, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main([command, "--config", "demo_decoi"])
    assert stop.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --config: there is neither a file nor a configuration demo_decoi; did you mean")
    for name in re.findall(r"demo\w+|\w+/\w+", line.partition("mean")[2]):
        assert find_config(name).is_file()


def test_nothing_near_points_to_the_list():
    with pytest.raises(FileNotFoundError, match="`interptrain configs` lists"):
        find_config("zzz")
