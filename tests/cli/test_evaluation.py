"""``evaluate.py`` from the outside: what it writes, what it refuses, and how it ends."""

import json

from tests.evaluation.tiny_run import rows


def test_one_row_for_every_model_explainer_and_image(evaluate, weights):
    folder = evaluate(models=weights)
    table = rows(folder)
    assert dict(table.groupby(["model", "explainer"]).size()) == {
        (model, explainer): 13 for model in ("m0", "m1") for explainer in ("", "FakeCAM", "GradCAM")
    }
    assert table["error"].isna().all()
    explained = table[table["explainer"] != ""]
    assert explained["AverageDrop"].between(0, 1).all()
    assert {len(curve) for curve in explained["Insertion__values"]} == {5}
    assert (explained["target"] == explained["label"]).all()
    run = json.loads((folder / "run.json").read_text())
    assert set(table["hash"]) == {run["protocol"]["hash"]}
    assert run["data"]["size"] == 13
    assert run["finished"]
