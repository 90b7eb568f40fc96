"""The other end of the network: a local server that speaks the Hugging Face hub's language."""

from __future__ import annotations

import hashlib
import json
import threading
import urllib.parse
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

REVISION = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """`files`: repository -> path -> bytes; `asked`: every request; `cut`: answers to break off.

    `lfs`: below this size the checksum is git's. `wrong`: paths whose bytes are not the published.
    """

    files: dict[str, dict[str, bytes]]
    asked: list[str] = field(default_factory=list)
    cut: int = 0
    cut_from: int = 0
    lfs: int = 100
    wrong: set[str] = field(default_factory=set)
    refuse: tuple[int, str] | None = None
    tokens: list[str | None] = field(default_factory=list)
    served: int = 0
    before_answer: object = None

    def entry(self, page: str, path: str) -> dict:
        data = self.files[page][path]
        sha1 = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        made = {"type": "file", "path": path, "size": len(data), "oid": sha1}
        if len(data) >= self.lfs:
            sha256 = hashlib.sha256(data).hexdigest()
            made["lfs"] = {"oid": sha256, "size": len(data), "pointerSize": 130}
        return made


@contextmanager
def running(files: dict[str, dict[str, bytes]]):
    """(the hub, its address)"""
    hub = Hub(files)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}).start()
    try:
        yield hub, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *_):
        pass

    def do_GET(self):
        self._note()
        parts = [urllib.parse.unquote(part) for part in self.path.partition("?")[0].split("/")[1:]]
        if self.hub.refuse:
            return self._refuse(*self.hub.refuse)
        if parts[:2] == ["api", "models"]:
            return self._api("/".join(parts[2:4]), parts[4:])
        return self._file("/".join(parts[:2]), "/".join(parts[4:]))

    def do_POST(self):
        self._note()
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.hub.refuse:
            return self._refuse(*self.hub.refuse)
        page = "/".join(self.path.split("/")[3:5])
        if "json" in (self.headers["Content-Type"] or ""):
            paths = json.loads(body)["paths"]
        else:
            paths = urllib.parse.parse_qs(body)["paths"]
        found = [self.hub.entry(page, path) for path in paths if path in self.hub.files[page]]
        return self._json(found)

    def _note(self):
        self.hub.asked.append(f"{self.command} {self.path}")
        self.hub.tokens.append(self.headers["Authorization"])

    def _api(self, page, rest):
        if page not in self.hub.files:
            return self._refuse(404, "RepoNotFound")
        if rest[:1] == ["tree"]:
            below = "/".join(rest[2:])
            inside = [path for path in self.hub.files[page] if path.startswith(below)]
            return self._json([self.hub.entry(page, path) for path in inside])
        return self._json({"id": page, "sha": REVISION, "siblings": [], "tags": []})

    def _file(self, page, path):
        if path not in self.hub.files.get(page, {}):
            self._refuse(404, "EntryNotFound")
            return
        data = self.hub.files[page][path]
        first, last = (int(n) for n in self.headers["Range"].removeprefix("bytes=").split("-"))
        body = data[first : last + 1]
        if path in self.hub.wrong:
            body = bytes(len(body))
        if self.hub.before_answer:
            self.hub.before_answer()
        self.send_response(206)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.end_headers()
        if self.hub.cut and first >= self.hub.cut_from:
            self.hub.cut -= 1
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.connection.close()
            self.close_connection = True
        else:
            self.hub.served += len(body)  # before the client can have it all and ask
            self.wfile.write(body)

    def _json(self, held):
        body = json.dumps(held).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _refuse(self, status, code):
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.end_headers()
