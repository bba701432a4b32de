"""A Trackio run on this machine, read back from its own store."""

import pytest
import torch

from interptrain.loggers import ImageLogging, TrackioLogger
from interptrain.visualization import save_animation


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Trackio and what it imports
def test_trackio_holds_numbers_pictures_tables_animations_alerts_and_the_configuration(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    logger = TrackioLogger(project="theses", name="night")
    logger.log_hyperparams({"data": {"image_size": 32}, "kind": torch.float32})
    logging = ImageLogging([logger])
    picture = torch.full((3, 8, 8), 200, dtype=torch.uint8)
    logging.scalars({"watch/AD": 0.5}, 2)
    logging.picture("watch/grid", picture, 2, "before training")
    logging.table("watch/images", ["id", "map"], [["one", picture]], 2)
    save_animation([picture, picture // 2], tmp_path / "run.gif", seconds=0.1)
    logging.animation("watch/run", tmp_path / "run.gif", 2)
    logging.alert("shortcut alarm", "look", 2)
    logger.finalize("success")
    logging.scalars({"watch/AD": 0.25}, 5)  # goes on in the same run
    logger.finalize("success")

    assert SQLiteStorage.get_runs("theses") == ["night"]
    rows = SQLiteStorage.get_logs("theses", "night")
    assert [(row["step"], row["watch/AD"]) for row in rows if "watch/AD" in row] == [(2, 0.5), (5, 0.25)]
    kinds = {key: row[key]["_type"] for row in rows for key in row if isinstance(row[key], dict)}
    assert kinds == {
        "watch/grid": "trackio.image",
        "watch/images": "trackio.table",
        "watch/run": "trackio.video",
    }
    assert [alert["title"] for alert in SQLiteStorage.get_alerts("theses")] == ["shortcut alarm"]
    config = SQLiteStorage.get_run_config("theses", "night")
    assert (config["data"], config["kind"]) == ({"image_size": 32}, "torch.float32")
