"""A stand-in for huggingface.co that serves folders on this machine, for tests of downloads.

Run as a script, it is the other side: it loads each model named on the command line and prints, as
JSON, what came of it. The hub's address is read once, when huggingface_hub is imported, so that
side needs a process of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ROOT = Path(__file__).parent.parent


def python_path() -> str:
    """For a new process: the project first, then what this one was given."""
    return os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])


@contextmanager
def fake_hub(models: dict[str, Path], refused: dict[str, tuple[int, str, str]]) -> Iterator[str]:
    """Serve `models` (name to folder); yields the address.

    `refused` are names that are there and whose files are not given out, with the hub's answer:
    status, error code, error message.
    """

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, name, file = self.parts()
            if name not in models and name not in refused:
                self.refuse(401, "RepoNotFound", "Repository not found")
            elif kind == "file" and name in refused:
                self.refuse(*refused[name])
            elif kind == "file":
                self.send_file(models[name] / file)
            elif kind == "info":
                files = [{"rfilename": f.name} for f in self.files(name)]
                self.send_json({"id": name, "modelId": name, "sha": COMMIT, "siblings": files})
            elif file:  # a folder inside the repository: these have none
                self.refuse(404, "EntryNotFound", "Entry not found")
            else:
                sizes = [(f.name, f.stat().st_size) for f in self.files(name)]
                self.send_json(
                    [{"type": "file", "path": p, "size": n, "oid": COMMIT} for p, n in sizes]
                )

        do_HEAD = do_GET

        def parts(self) -> tuple[str, str, str]:
            """What is asked for (file, info or tree), of which model, which file or folder."""
            parts = self.path.split("?")[0].strip("/").split("/")
            if parts[:2] == ["api", "models"]:
                kind = "tree" if "tree" in parts else "info"
                return kind, "/".join(parts[2:4]), "/".join(parts[6:])
            return "file", "/".join(parts[:2]), "/".join(parts[4:])

        def files(self, name: str) -> list[Path]:
            return sorted(models[name].iterdir()) if name in models else []

        def refuse(self, status: int, code: str, message: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", message)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def send_json(self, value: object) -> None:
            self.send_body(json.dumps(value).encode(), {"Content-Type": "application/json"})

        def send_file(self, path: Path) -> None:
            if path.is_file():
                body = path.read_bytes()
                etag = hashlib.sha1(body).hexdigest()
                self.send_body(body, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})
            else:
                self.refuse(404, "EntryNotFound", "Entry not found")

        def send_body(self, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(200)
            for header, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(header, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def load_from(
    endpoint: str, cache: Path, names: list[str], **environment: str
) -> tuple[dict[str, list[str]], str]:
    """Load each name in a new process that takes `endpoint` for huggingface.co.

    Gives {name: [type, text]}, the type and text of the error or of the model, and what the
    process wrote to stderr.
    """
    left_out = {"TUTORIAL_MODEL", "HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"}
    kept = {k: v for k, v in os.environ.items() if k not in left_out and "proxy" not in k.lower()}
    process = subprocess.run(
        [sys.executable, __file__, *names],
        env={
            **kept,
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(cache),
            "PYTHONPATH": python_path(),
            "DISABLE_SAFETENSORS_CONVERSION": "1",  # it would ask another machine for help
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout), process.stderr


def main() -> None:
    from tutorial_utils.models.load import load_model

    results = {}
    for name in sys.argv[1:]:
        try:
            model, _ = load_model(name)
            results[name] = [type(model).__name__, str(model.training)]
        except Exception as error:
            results[name] = [type(error).__name__, str(error)]
    print(json.dumps(results))


if __name__ == "__main__":
    main()
