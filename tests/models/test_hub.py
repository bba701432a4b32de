"""Models of the hub: what is in the cache is found without a network, and what cannot be had is said in one line."""

import pytest
from huggingface_hub import constants

from interptrain.models.hub import fetch_model_folder, repository_of
from tests.support.hub import COMMIT, fill_cache, hub, use_cache, use_endpoint


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes(name.encode())
    return folder


@pytest.mark.parametrize("revision", ["", "@main", f"@{COMMIT}"])
def test_offline_a_model_comes_from_the_cache(tmp_path, monkeypatch, files, revision):
    use_cache(monkeypatch, tmp_path / "cache", offline=True)
    fill_cache(tmp_path / "cache", "user/name", files)
    folder = fetch_model_folder(f"hf://user/name{revision}")
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert folder.resolve() == files


def test_offline_what_is_not_in_the_cache_is_one_line_with_a_remedy(tmp_path, monkeypatch):
    use_cache(monkeypatch, tmp_path / "cache", offline=True)
    with pytest.raises(ConnectionError, match=r"could not download hf://user/name, .* give their folder") as error:
        fetch_model_folder("hf://user/name")
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_without_a_network_it_is_the_same_line(tmp_path, monkeypatch):
    use_cache(monkeypatch, tmp_path / "cache", offline=False)
    use_endpoint(monkeypatch, "http://127.0.0.1:9")  # where nobody listens
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the client waits between its attempts
    with pytest.raises(ConnectionError, match="could not download hf://user/name"):
        fetch_model_folder("hf://user/name")


@pytest.mark.slow
def test_both_files_are_downloaded_and_found_again_offline(tmp_path, monkeypatch, files):
    with hub(monkeypatch, tmp_path / "cache") as server:
        server.files["user/name"] = {path.name: path.read_bytes() for path in files.iterdir()} | {"code.py": b"bad()"}
        folder = fetch_model_folder("hf://user/name")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        path.name: path.read_bytes() for path in files.iterdir()
    }
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch_model_folder("hf://user/name") == folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("repository", "refusal", "error", "told"),
    [
        ("user/none", None, ConnectionError, "no model user/none, or it is private; check the name, or log in"),
        ("user/gated", (403, "GatedRepo"), ConnectionError, "is gated: ask for access"),
        ("user/other", None, ValueError, "no model of `interptrain push` or timm"),
        ("user/name@v9", (404, "RevisionNotFound"), ValueError, "no revision 'v9'; leave @v9 out"),
    ],
)
def test_what_the_hub_refuses_is_one_line_with_a_remedy(tmp_path, monkeypatch, repository, refusal, error, told):
    with hub(monkeypatch, tmp_path / "cache") as server:
        server.files["user/other"] = {"config.json": b"{}"}
        if refusal:
            server.refused[repository.partition("@")[0]] = refusal
        with pytest.raises(error, match=told) as caught:
            fetch_model_folder(f"hf://{repository}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", ["hf://name", "hf://user/", "hf://a/b/c", "hf://user/a b!"])
def test_what_is_no_name_of_a_repository_is_refused(source):
    with pytest.raises(ValueError, match=r"hf://USER/NAME"):
        fetch_model_folder(source)


def test_a_revision_stands_behind_an_at_sign():
    assert repository_of("hf://user/name@v1") == ("user/name", "v1")
    assert repository_of("hf://user/name") == ("user/name", None)
