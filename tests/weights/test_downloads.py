"""Downloads, from a server on this machine: only what has the expected checksum and size arrives, and offline nothing is asked for."""

from __future__ import annotations

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxgan import weights


class Handler(BaseHTTPRequestHandler):
    content = b""
    asked: list[str] = []
    sent = 0

    def do_GET(self) -> None:
        Handler.asked.append(self.path)
        if self.path == "/elsewhere":
            self.send_response(302)
            self.send_header("Location", "ftp://127.0.0.1/file")
            self.end_headers()
            return
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/file")
            self.end_headers()
            return
        if self.path not in ("/file", "/endless", "/short"):
            self.send_error(404)
            return
        self.send_response(200)
        if self.path == "/short":
            self.send_header("Content-Length", str(len(self.content) + 10))
        self.end_headers()
        try:
            for _ in range(64 if self.path == "/endless" else 1):
                self.wfile.write(self.content if self.path != "/endless" else bytes(2**20))
                Handler.sent += 1
        except OSError:
            pass

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.delenv("JAXGAN_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    Handler.asked, Handler.sent = [], 0
    with HTTPServer(("127.0.0.1", 0), Handler) as made:
        thread = threading.Thread(target=made.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{made.server_port}"
        made.shutdown()
        thread.join()


@pytest.fixture
def toy(server, tmp_path, monkeypatch):
    """A registered file with an address."""
    save_file({"a": np.arange(3, dtype=np.float32)}, tmp_path / "toy.safetensors")
    Handler.content = (tmp_path / "toy.safetensors").read_bytes()
    (tmp_path / "toy.safetensors").unlink()
    shapes, digest = {"a": ("float32", (3,))}, hashlib.sha256(Handler.content).hexdigest()
    entry = weights.Weights("toy.safetensors", "a toy", "MIT", "here", digest, len(Handler.content), 1, shapes, url=f"{server}/file")
    monkeypatch.setattr(weights, "KNOWN", {"toy": entry})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("JAXGAN_WEIGHTS", raising=False)
    return entry


def test_named_weights_are_fetched_once(toy, tmp_path):
    for _ in range(2):
        np.testing.assert_array_equal(weights.load("toy")["a"], [0, 1, 2])
    assert Handler.asked == ["/file"]
    assert [path.name for path in (tmp_path / "cache" / "jaxgan" / "weights").iterdir()] == ["toy.safetensors"]


def test_an_address_may_be_given_and_only_for_the_published_file(toy, server, tmp_path, monkeypatch):
    assert weights.import_weights("toy", f"{server}/moved", cache=tmp_path / "c").read_bytes() == Handler.content
    with pytest.raises(ValueError, match="weights 'other' are not known"):
        weights.import_weights("other", f"{server}/file", cache=tmp_path / "d")
    monkeypatch.setattr(weights, "KNOWN", {"toy": toy._replace(sha256="")})
    with pytest.raises(ValueError, match="no checksum of toy is known"):
        weights.import_weights("toy", f"{server}/file", cache=tmp_path / "d")
    assert not (tmp_path / "d").exists() and Handler.asked == ["/moved", "/file"]


@pytest.mark.parametrize("value, fetches", [("1", False), ("yes", False), ("0", True), ("", True)])
def test_offline_means_no_connection(toy, server, tmp_path, monkeypatch, value, fetches):
    monkeypatch.setenv("JAXGAN_OFFLINE", value)
    if fetches:
        assert weights.load("toy")["a"].shape == (3,)
        return
    with pytest.raises(FileNotFoundError, match="JAXGAN_OFFLINE is set, so http.* was not fetched"):
        weights.load("toy")
    with pytest.raises(OSError, match="JAXGAN_OFFLINE is set"):
        weights.import_weights("toy", f"{server}/file")
    assert Handler.asked == [] and not (tmp_path / "cache").exists()


@pytest.mark.parametrize("before", [None, b"what was there"])
def test_refused_downloads_leave_nothing(toy, server, tmp_path, before):
    target = tmp_path / "d" / "file"
    if before:
        target.parent.mkdir()
        target.write_bytes(before)
    size, digest = toy.size, toy.sha256
    for address, sha256, limit, error, message in [
        (f"{server}/file", "0" * 64, size, ValueError, f"sha256 {digest}, not 0000"),
        (f"{server}/short", "0" * 64, size, ValueError, "another file, or the transfer was cut short"),
        (f"{server}/file", digest, size - 1, ValueError, "gives more than"),
        (f"{server}/endless", digest, 2**21, ValueError, "gives more than the 2,097,152 bytes"),
        (f"{server}/nothing", digest, size, OSError, "answers 404"),
        (f"{server}/elsewhere", digest, size, ValueError, "ftp://127.0.0.1/file is not fetched"),
        ("http://127.0.0.1:9/file", digest, size, OSError, "could not be fetched"),
        ("file:///etc/hostname", digest, size, ValueError, "only https"),
        ("ftp://127.0.0.1/file", digest, size, ValueError, "only https"),
        (f"{server}/file", "", size, ValueError, "without its sha256"),
        (f"{server}/file", digest[:12], size, ValueError, "without its sha256"),
    ]:
        with pytest.raises(error, match=message):
            weights.download(address, sha256, limit, target)
        assert [path.name for path in target.parent.glob("*")] == (["file"] if before else [])
        assert not before or target.read_bytes() == before
    # 64 MiB are on offer: the transfer ends when the limit is passed, not after it.
    assert Handler.sent < 64
