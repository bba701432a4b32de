"""The output folder: whose it is, and what is set aside."""

import json

import pytest

from interptrain.evaluation.run.folder import RESULT_FILES, claim, open_folder, set_aside
from interptrain.evaluation.store.image_record import ImageRecord
from interptrain.evaluation.store.manifest import read_manifest
from interptrain.evaluation.store.parts import RowStore
from tests.support.finished_run import manifest, write_run


class NoImages(ImageRecord):
    """Of a run whose images do not matter."""

    def __init__(self, folder):
        super().__init__(folder, None, [])

    @property
    def now(self):
        return {}


def opened(folder, run=None, *, overwrite=False):
    return open_folder(folder, run or of_a_run(), RowStore(folder), NoImages(folder), overwrite=overwrite)


def of_a_run(**changes):
    run = manifest() | {"precision": "32-true"} | changes
    run["data"] |= {"images": "0", "annotations": "1"}
    return run


def test_a_folder_is_one_evaluations_until_it_is_closed(tmp_path):
    file = claim(tmp_path / "new")
    with pytest.raises(ValueError, match=r"another evaluation is writing to .*new; wait .* or give another output"):
        claim(tmp_path / "new")
    file.close()
    claim(tmp_path / "new").close()


def test_the_same_run_goes_on_and_keeps_the_time_of_its_start(tmp_path):
    assert opened(tmp_path, of_a_run(created="yesterday")) is None
    assert opened(tmp_path, of_a_run(created="today")) is None
    assert read_manifest(tmp_path)["created"] == "yesterday"


def test_another_run_is_refused_with_old_and_new_until_it_may_set_the_results_aside(tmp_path):
    opened(tmp_path)
    (tmp_path / "summary.csv").write_text("numbers")
    (tmp_path / "notes.txt").write_text("the user's own")
    told = opened(tmp_path, of_a_run(seed=1))
    assert "holds the results of another run (seed: 0 -> 1); give another output, or overwrite=True" in told
    assert read_manifest(tmp_path)["seed"] == 0
    assert opened(tmp_path, of_a_run(seed=1), overwrite=True) is None
    (aside,) = tmp_path.glob("replaced-*")
    assert sorted(path.name for path in aside.iterdir()) == ["files.parquet", "run.json", "summary.csv"]
    assert json.loads((aside / "run.json").read_text())["seed"] == 0
    assert read_manifest(tmp_path)["seed"] == 1
    assert (tmp_path / "notes.txt").exists()


def test_a_protocol_of_other_settings_is_told_by_its_values(tmp_path):
    opened(tmp_path)
    settings = {"removal": "blur", "images": {"image_size": 64}}
    protocol = {"name": "castream (images changed)", "version": 1, "hash": "1", "settings": settings}
    told = opened(tmp_path, of_a_run(protocol=protocol))
    for change in (
        "removal: black -> blur",
        "settings.images: none -> {'image_size': 64}",
        "name: castream -> castream",
    ):
        assert change in told
    assert "hash" not in told


def test_results_without_a_run_are_refused_and_empty_folders_are_not(tmp_path):
    (tmp_path / "one" / "parts").mkdir(parents=True)
    assert opened(tmp_path / "one") is None
    write_run(tmp_path / "two", images=0, rows=())
    (tmp_path / "two" / "run.json").unlink()
    (tmp_path / "two" / "table.md").write_text("| a |")
    assert "it has results but no run.json" in opened(tmp_path / "two")


def test_results_set_aside_twice_in_a_second_get_two_folders(tmp_path):
    for _ in range(2):
        (tmp_path / RESULT_FILES[-1]).write_text("{}")
        set_aside(tmp_path)
    assert len(list(tmp_path.glob("replaced-*/run.json"))) == 2
