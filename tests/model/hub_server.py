"""A model hub of one process, as far as an upload and a download need it: real requests, kept in memory."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

COMMIT = "1" * 40


class Hub(ThreadingHTTPServer):
    """Repositories are made by whoever has the token; `public/...` are there already, and public."""

    def __init__(self, token: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.token = token
        self.private: dict[str, bool] = {}
        self.files: dict[str, dict[str, bytes]] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""

    def answer(self, value: Any = None, status: int = 200, body: bytes = b"", **headers: str) -> None:
        body = json.dumps(value).encode() if value is not None else body
        self.send_response(status)
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        for name, text in ({"Content-Length": str(len(body))} | named).items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def allowed(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {self.server.token}":
            return True
        self.answer({"error": "Invalid username or password."}, 401)
        return False

    def body(self) -> bytes:
        self.server.requests.append(f"{self.command} {self.path}")
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_POST(self) -> None:
        data, hub = self.body(), self.server
        if not self.allowed():
            return
        parts = unquote(self.path).strip("/").split("/")
        if parts == ["api", "repos", "create"]:
            asked = json.loads(data)
            name = f"{asked['organization']}/{asked['name']}"
            hub.private.setdefault(
                name, asked.get("visibility") == "private" and not name.startswith("public/")
            )
            self.answer({"url": f"{hub.url}/{name}"})
        elif parts == ["api", "validate-yaml"]:
            self.answer({"errors": [], "warnings": []})
        elif parts[-2:-1] == ["preupload"]:
            kinds = [
                {"path": f["path"], "uploadMode": "lfs" if f["path"].endswith(".safetensors") else "regular"}
                for f in json.loads(data)["files"]
            ]
            self.answer({"files": [kind | {"shouldIgnore": False} for kind in kinds]})
        elif parts[-2:] == ["objects", "batch"]:
            objects = [
                {**o, "actions": {"upload": {"href": f"{hub.url}/lfs/{o['oid']}"}}}
                for o in json.loads(data)["objects"]
            ]
            self.answer({"objects": objects, "transfer": "basic"})
        else:
            self.commit("/".join(parts[2:4]), [json.loads(line) for line in data.splitlines()])

    def commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        files = self.server.files.setdefault(name, {})
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
        self.answer({"commitUrl": f"{self.server.url}/{name}/commit/{COMMIT}", "commitOid": COMMIT})

    def do_PUT(self) -> None:
        data = self.body()
        oid = self.path.rpartition("/")[2]
        if hashlib.sha256(data).hexdigest() != oid:
            self.answer({"error": "not the object"}, 400)
            return
        self.server.objects[oid] = data
        self.answer({})

    def do_GET(self) -> None:
        self.body()
        parts, hub = unquote(self.path.partition("?")[0]).strip("/").split("/"), self.server
        if parts[:2] == ["api", "models"] and "tree" not in parts:
            name = "/".join(parts[2:4])
            siblings = [{"rfilename": path} for path in hub.files.get(name, {})]
            facts = {"id": name, "private": hub.private.get(name, False), "sha": COMMIT, "siblings": siblings}
            self.answer(facts)
        elif "tree" in parts:
            files = hub.files.get("/".join(parts[2:4]), {}).items()
            self.answer([{"type": "file", "path": p, "size": len(d), "oid": "0" * 40} for p, d in files])
        else:  # owner/name/resolve/revision/path
            data = hub.files.get("/".join(parts[:2]), {}).get("/".join(parts[4:]))
            if data is None:
                self.answer({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound")
            else:
                etag = f'"{hashlib.sha256(data).hexdigest()}"'
                self.answer(body=data, X_Repo_Commit=COMMIT, ETag=etag)

    do_HEAD = do_GET


@contextlib.contextmanager
def running(token: str) -> Iterator[Hub]:
    hub = Hub(token)
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        thread.join()
        hub.server_close()
