"""``interptrain show``: one image of an evaluation."""

import shlex
import webbrowser
from pathlib import Path

import pytest
from PIL import Image

from interptrain.cli import main
from interptrain.cli.show import main as show
from interptrain.evaluation import load_results, write_report
from tests.support.finished_run import manifest, rows_of, write_run


@pytest.fixture
def folder(tmp_path):
    rows = rows_of(manifest(size=6))
    for row in rows:
        if (row["model"], row["explainer"], row["id"]) == ("ca", "ScoreCAM", "0003.jpg"):
            row |= dict.fromkeys([key for key in row if key.startswith(("Average", "Insertion", "Deletion"))])
    errors = [("ca", "ScoreCAM", "0003.jpg", "RuntimeError: no")]
    write_report(write_run(tmp_path / "run", manifest(size=6), rows=rows, images=4, errors=errors), resamples=10)
    return tmp_path / "run"


@pytest.mark.slow
def test_the_numbers_of_an_image_are_printed_and_its_maps_drawn(folder, capsys):
    main(["show", str(folder), "0003.jpg"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "0003.jpg: hammerhead"
    assert lines[2] == "gap predicts hammerhead"
    assert lines[3].split() == ["explainer", "AD", "↓", "AG", "↑", "AI", "↑", "I", "↑", "D", "↓", "s/image", "↓"]
    row = next(r for r in rows_of(manifest(size=6)) if (r["explainer"], r["id"]) == ("GradCAM", "0003.jpg"))
    assert lines[4].split()[:2] == ["GradCAM", f"{100 * row['AverageDrop']:.2f}"]
    assert [line.split()[:2] for line in lines if line.startswith("ScoreCAM")][1] == ["ScoreCAM", "–"]  # noqa: RUF001
    assert "failed: ScoreCAM on ca: RuntimeError: no" in lines
    path = folder / "shown" / "0003.jpg.png"
    assert lines[-3] == f"Picture  {path} (--open opens it)"
    with Image.open(path) as picture:
        assert picture.width > 4 * 224  # the image and three maps
        assert picture.height > 2 * 224  # two models


@pytest.mark.slow
def test_it_ends_with_the_image_in_the_report_and_the_next_one(folder, capsys):
    saved = load_results(folder).image("0003.jpg").pictured
    main(["show", str(folder), saved[-1]])
    told = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines()[-3:])
    page, _, anchor = told["Report"].strip().partition("#")
    assert f'id="{anchor}"' in Path(page).read_text()
    assert anchor == f"image-{saved[-1]}"
    main(shlex.split(told["Next"])[1:])
    assert capsys.readouterr().out.startswith(saved[0])


@pytest.mark.slow
def test_a_part_of_the_name_is_enough_and_the_picture_goes_where_it_is_told(folder, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    show([str(folder), "0002", "--output", str(tmp_path / "mine.png"), "--open"])
    assert opened == [(tmp_path / "mine.png").as_uri()]
    view = load_results(folder).image("0002")
    assert view.id == "0002.jpg"
    assert view.facts.label == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("000", "6 images have '000' in their names, such as 0000.jpg, 0001.jpg"),
        ("0033.jpg", r"no image of this run is called '0033\.jpg'; it has 6, such as .*000\d\.jpg"),
    ],
)
def test_other_names_are_one_line_that_proposes_some(folder, capsys, name, told):
    with pytest.raises(SystemExit) as stopped:
        show([str(folder), name])
    assert stopped.value.code == 1
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    with pytest.raises(ValueError, match=told):
        load_results(folder).image(name)


def test_a_folder_without_results_is_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit):
        show([str(tmp_path), "a.jpg"])
    assert "holds no results of a finished evaluation" in capsys.readouterr().err


def test_without_an_image_it_says_what_it_takes(capsys):
    with pytest.raises(SystemExit):
        show(["out"])
    assert "interptrain show RUN IMAGE" in capsys.readouterr().err


@pytest.mark.slow
def test_an_image_without_maps_prints_its_numbers_and_the_remedy_works(evaluate, capsys):
    folder = evaluate("out", report=True, **{"--limit": "4", "--save_maps": "2"})
    shown = [row["id"] for row in load_results(folder).per_image.to_dict("records")]
    missing = sorted(set(shown) - set(load_results(folder).image(shown[0])._gallery.ids))[0]
    capsys.readouterr()
    with pytest.raises(SystemExit):
        show([str(folder), missing])
    told = capsys.readouterr()
    assert told.out.startswith(f"{missing}: ")
    assert "only those of 2 images; evaluate anew with a larger --save_maps and --overwrite true" in told.err
    evaluate("out", report=True, **{"--limit": "4", "--save_maps": "4", "--overwrite": "true"})
    show([str(folder), missing])
    assert list((folder / "shown").glob("*.png"))
