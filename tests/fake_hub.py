"""A Hugging Face Hub on this machine: what huggingface_hub asks of it to fetch a folder."""

import hashlib
import json
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, urlparse

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def serving(repositories: dict[str, Path]):
    """Address of a Hub with these repositories, "organisation/name" -> folder, and its requests."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            self.answer(body=True)

        def answer(self, body: bool):
            url = urlparse(self.path)
            asked.append(f"{self.command} {url.path}")
            for name, folder in repositories.items():
                if url.path.startswith(f"/api/models/{name}"):
                    return self.describe(name, folder, url)
                prefix = f"/{name}/resolve/{COMMIT}/"
                file = folder / url.path.removeprefix(prefix)
                if url.path.startswith(prefix) and file.is_file():
                    content = file.read_bytes()
                    return self.send(content if body else b"", len(content), {
                        "ETag": f'"{hashlib.sha1(content).hexdigest()}"',
                        "X-Repo-Commit": COMMIT,
                    })  # fmt: skip
            message = {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}
            return self.send(b"{}", 2, message, status=404)

        def describe(self, name: str, folder: Path, url):
            files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.*"))
            if "/tree/" in url.path:
                rows = [
                    {"type": "file", "path": file, "oid": "0" * 40,
                     "size": (folder / file).stat().st_size}
                    for file in files
                ]  # fmt: skip
                assert "cursor" not in parse_qs(url.query)
                return self.send(json.dumps(rows).encode())
            record = {
                "id": name,
                "sha": COMMIT,
                "siblings": [{"rfilename": file} for file in files],
                "tags": [],
            }
            return self.send(json.dumps(record).encode())

        def send(self, content: bytes, length: int | None = None, headers=None, status: int = 200):
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content) if length is None else length))
            for key, value in (headers or {}).items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
