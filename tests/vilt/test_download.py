"""make_arrow.py --download against a small hub on the loopback interface."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pyarrow as pa
import pytest

from vilt.utils.write_hatememes import PUBLISHED

ROOT = Path(__file__).parents[2]
NAME = "TreezzZ/MoRA-data"
COMMIT = "7af8e0e" + "0" * 33
MASK = "hateful_memes/missing_tables/hateful_memes_splittest_missing_both_0.7.pt"


def write_rows(path: Path, rows: int) -> bytes:
    """An arrow file of the released columns, which have no image_id."""
    table = pa.table({"image": [b"i"] * rows, "text": [["t"]] * rows, "label": [0] * rows, "split": ["s"] * rows})
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)
    return path.read_bytes()


def etag(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


class HubHandler(BaseHTTPRequestHandler):
    """Answers what the client asks of a data set: its commit and files, and the files themselves."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition(f"/datasets/{NAME}/resolve/{COMMIT}/")[2]
        files = self.server.files
        if self.path.startswith(f"/api/datasets/{NAME}/tree/"):
            tree = [{"type": "file", "path": p, "oid": etag(data), "size": len(data)} for p, data in files.items()]
            self.reply(json.dumps(tree).encode())
        elif self.path.startswith(f"/api/datasets/{NAME}"):
            self.reply(json.dumps({"id": NAME, "sha": COMMIT}).encode())
        elif path in files:
            self.server.sent += [path] * (self.command == "GET")
            self.reply(files[path])
        else:
            self.send_error(404)

    def reply(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{etag(body)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[ThreadingHTTPServer]:
    """A hub that has memes of the published size, a missing table, and files that are not wanted."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), HubHandler)
    rows = dict(zip(("train", "val", "test"), PUBLISHED.values(), strict=True))
    server.files = {f"hateful_memes/{split}.arrow": write_rows(tmp_path / split, n) for split, n in rows.items()}
    server.files |= {MASK: b"a mask", "hateful_memes/notes.txt": b"n", "Food101/train.arrow": b"x"}
    server.sent = []
    Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def download(port: int, target: Path, dataset: str = "hateful_memes") -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    env |= {"HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HOME": str(target / "home"), "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, "make_arrow.py", "--download", "--target", str(target), "--dataset", dataset]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=100)


def error_of(done: subprocess.CompletedProcess[str]) -> str:
    """The last line of a run that must fail without a traceback."""
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


def test_files_and_masks_arrive_once_and_are_counted(hub: ThreadingHTTPServer, tmp_path: Path) -> None:
    for _ in range(2):  # the second run transfers nothing
        done = download(hub.server_port, tmp_path)
        assert done.returncode == 0, done.stderr
        for line in ("train.arrow 8500 8500", "val.arrow 500 500", "test.arrow 1000 1000"):
            assert f"hateful_memes/{line}".split() in [row.split() for row in done.stdout.splitlines()]
        wanted = [path for path in hub.files if path.startswith("hateful") and "notes" not in path]
        assert sorted(hub.sent) == sorted(wanted)
    for path in wanted:
        assert (tmp_path / path).read_bytes() == hub.files[path]

    hub.files["hateful_memes/test.arrow"] = write_rows(tmp_path / "short", 999)
    message = error_of(download(hub.server_port, tmp_path / "again"))
    assert "999 " in message
    assert "1000" in message
    hub.files["hateful_memes/val.arrow"] = hub.files["hateful_memes/val.arrow"][:-20]
    assert "val.arrow" in error_of(download(hub.server_port, tmp_path / "cut"))


def test_absent_files_and_an_absent_hub_are_one_line(hub: ThreadingHTTPServer, tmp_path: Path) -> None:
    assert "food101/train.arrow" in error_of(download(hub.server_port, tmp_path, "food101"))
    assert NAME in error_of(download(9, tmp_path))
