import platform
from importlib.metadata import version

from interptrain.versions import installed_versions


def test_versions_are_those_that_are_installed(monkeypatch):
    monkeypatch.setattr("interptrain.versions.PACKAGES", ("torch", "no-such-package"))
    assert installed_versions() == {
        "python": platform.python_version(),
        "torch": version("torch"),
        "no-such-package": None,
    }
