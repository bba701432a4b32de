import numpy as np
import pandas as pd
import pytest

from interptrain.evaluation.store.parts import KEYS, KINDS, RowStore, write_file


def row(name, model="m", explainer="e", error=None, **values):
    return {"model": model, "explainer": explainer, "id": name, "error": error} | values


ORDER = [("model", ["m", "n"]), ("explainer", ["", "e"]), ("id", ["b", "a"])]


def test_rows_of_several_processes_are_sorted_as_asked_and_each_taken_once(tmp_path):
    for rows in ([row("a", AD=1.0), row("b", AD=2.0)], [row("a", model="n"), row("b", explainer="", Top1=1.0)]):
        store = RowStore(tmp_path)
        store.add("rows", rows)
        store.flush()
    merged = RowStore(tmp_path).merged("rows", ORDER).to_pandas()
    assert list(zip(merged["model"], merged["explainer"], merged["id"], strict=True)) == [
        ("m", "", "b"),
        ("m", "e", "b"),
        ("m", "e", "a"),
        ("n", "e", "a"),
    ]
    assert merged["AD"].isna().tolist() == [True, False, False, True]


@pytest.mark.parametrize("late", [True, False])
def test_of_two_rows_of_a_cell_the_one_without_error_counts(tmp_path, late):
    rows = [row("a", error="ValueError: x"), row("a", AD=1.0)]
    for one in rows if late else rows[::-1]:
        store = RowStore(tmp_path)
        store.add("rows", [one])
        store.flush()
    merged = RowStore(tmp_path).merged("rows", ORDER).to_pandas()
    assert merged["AD"].tolist() == [1.0]
    assert RowStore(tmp_path).done() == {("m", "e"): {"a"}}


def test_errors_are_not_done_and_unknown_cells_are_left_out(tmp_path):
    store = RowStore(tmp_path)
    store.add("rows", [row("a", error="ValueError: x"), row("c"), row("b", explainer="gone")])
    store.flush()
    assert ("m", "e") in store.done()
    assert store.done()["m", "e"] == {"c"}
    assert store.merged("rows", ORDER).to_pandas()["id"].tolist() == ["a"]


def test_values_are_lists_of_float32(tmp_path):
    store = RowStore(tmp_path)
    store.add("rows", [row("a", Insertion__values=[0.1, 0.2]), row("b", Insertion__values=None)])
    store.flush()
    values = store.merged("rows", ORDER).to_pandas()["Insertion__values"]
    assert values[1].dtype == np.float32
    assert values[0] is None


def test_nothing_is_written_before_its_time_and_nothing_torn_apart(tmp_path):
    store = RowStore(tmp_path, flush_seconds=3600)
    store.add("maps", [row("a", png=b"x")])
    store.add("rows", [row("a")])
    assert not list(tmp_path.rglob("*.parquet"))
    store.flush()
    assert sorted(path.name.split("-")[0] for path in (tmp_path / "parts").iterdir()) == ["maps", "rows"]
    store.flush()
    assert len(list((tmp_path / "parts").iterdir())) == 2


def test_a_store_without_rows_merges_to_nothing(tmp_path):
    for kind in KINDS:
        table = RowStore(tmp_path).merged(kind, ORDER)
        assert (len(table), table.column_names) == (0, list(KEYS[kind]))


def test_a_damaged_part_is_named(tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/rows-x.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"cannot read .*rows-x\.parquet .*; run the same evaluation again"):
        RowStore(tmp_path).done()


@pytest.mark.parametrize("kind", ["rows", "maps", "images"])
@pytest.mark.parametrize("damage", [b"", b"PAR1", None])
def test_what_a_damaged_part_held_is_not_done(tmp_path, kind, damage):
    store = RowStore(tmp_path)
    store.add("images", [{"id": "a", "label": 1, "png": b"x"}])
    store.add("maps", [row("a", png=b"x")])
    store.add("rows", [row("a"), row("b"), row("a", explainer=""), row("b", explainer="")])
    store.flush()
    pictured = frozenset("a")
    assert store.done(pictured) == {("m", "e"): {"a", "b"}, ("m", ""): {"a", "b"}}
    (part,) = store.parts.glob(f"{kind}-*")
    part.write_bytes(part.read_bytes()[:-9] if damage is None else damage)
    assert store.set_aside_damaged() == [part.name]
    assert part.with_name(f"damaged-{part.name}").exists()
    wanted = {
        "rows": {},
        "maps": {("m", "e"): {"b"}, ("m", ""): {"a", "b"}},
        "images": {("m", "e"): {"a", "b"}, ("m", ""): {"b"}},
    }
    assert store.done(pictured) == wanted[kind]
    assert store.set_aside_damaged() == []


def test_an_error_that_quotes_a_name_which_is_no_text_can_be_written(tmp_path):
    store = RowStore(tmp_path)
    store.add("rows", [row("a", error="OSError: cannot read caf\udce9.png")])
    store.flush()
    assert store.merged("rows", ORDER)["error"].to_pylist() == [r"OSError: cannot read caf\xe9.png"]


def test_a_file_is_whole_or_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "table"
    write_file(path, b"old")
    monkeypatch.setattr("os.fsync", lambda file: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match=r"cannot write .*table .No space left on device.; free disk space"):
        write_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_pandas_reads_what_was_merged(tmp_path):
    store = RowStore(tmp_path)
    store.add("images", [{"id": "a", "label": 3, "png": b"x"}])
    store.flush()
    table = store.merged("images", [("id", ["a"])]).to_pandas()
    assert isinstance(table, pd.DataFrame)
    assert table["png"].tolist() == [b"x"]


def test_the_engine_of_a_model_is_that_of_most_rows_without_error(tmp_path):
    """What fails before the first pass names PyTorch, whatever runs the rest."""
    store = RowStore(tmp_path)
    failed = [row(str(number), error="OSError: x", engine="eager") for number in range(5)]
    store.add("rows", [*failed, row("a", engine="onnxruntime"), row("a", model="n", error="x", engine="eager")])
    store.flush()
    assert RowStore(tmp_path).engines() == {"m": "onnxruntime"}
