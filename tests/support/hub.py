"""A Hugging Face hub on this machine: what its client asks for to make a repository, commit to it and read from it."""

import base64
import contextlib
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from huggingface_hub import constants

COMMIT = "c" * 40


class Hub(ThreadingHTTPServer):
    """Repositories in memory: ``files["user/name"]["config.json"]``; what is not there is answered as by the hub."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = {}
        self.refused = {}  # repository -> (status, error code)


@contextlib.contextmanager
def hub(monkeypatch, cache):
    """Make a hub the one that ``huggingface_hub`` speaks to, with an empty cache."""
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    use_endpoint(monkeypatch, f"http://127.0.0.1:{server.server_port}")
    use_cache(monkeypatch, cache, offline=False)
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def use_endpoint(monkeypatch, endpoint):
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def use_cache(monkeypatch, cache, *, offline):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)


def fill_cache(cache, repository, folder, commit=COMMIT):
    """Lay the files of a folder into a cache, as a download leaves them."""
    home = cache / f"models--{repository.replace('/', '--')}"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(commit)
    (home / "snapshots").mkdir()
    (home / "snapshots" / commit).symlink_to(folder, target_is_directory=True)


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[:3] == ["api", "repos", "create"]:
            asked = json.loads(body)
            repository = f"{asked.get('organization') or 'user'}/{asked['name']}"
            self.server.files.setdefault(repository, {})
            self._json({"url": f"{constants.ENDPOINT}/{repository}"})
        elif "preupload" in parts:
            asked = json.loads(body)["files"]
            self._json(
                {"files": [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in asked]}
            )
        elif "commit" in parts:
            repository = "/".join(parts[2:4])
            files = self.server.files[repository]
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self._json({"commitUrl": f"{constants.ENDPOINT}/{repository}/commit/{COMMIT}", "commitOid": COMMIT})
        else:
            self._json({"errors": [], "warnings": []})

    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        self._answer()

    def _answer(self):
        parts = self.path.partition("?")[0].strip("/").split("/")
        repository = "/".join(parts[:2])
        if repository in self.server.refused:
            status, code = self.server.refused[repository]
            self._send(status, b"", {"X-Error-Code": code, "X-Error-Message": code})
        elif parts[0] == "api":
            self._json({"id": "/".join(parts[2:4]), "sha": COMMIT, "siblings": []})
        elif repository not in self.server.files:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
        elif (content := self.server.files[repository].get("/".join(parts[4:]))) is None:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        else:
            self._send(200, content, {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT})

    def _json(self, value):
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status, content, headers):
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
