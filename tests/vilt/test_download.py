"""make_arrow.py --download against a small hub on the loopback interface."""

import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pyarrow as pa
import pytest

from vilt.utils import arrow
from vilt.utils.download import EXPECTED, Expected, check_rows
from vilt.utils.raw import RawDataError

ROOT = Path(__file__).parents[2]
COMMIT = "7af8e0e" + "0" * 33
NAME = "TreezzZ/MoRA-data"
MEMES = dict(zip(("train", "val", "test"), EXPECTED["hateful_memes"].rows, strict=True))
MASK = "hateful_memes/missing_tables/hateful_memes_splittest_missing_both_0.7.pt"
CHUNK = 10 * 2**20  # the client keeps a broken-off transfer in steps of this size


class Hub(ThreadingHTTPServer):
    """Serves what the client asks of a data set: its commit, its tree, ranges of its files."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.files = files
        self.hashes = {p: hashlib.sha256(data).hexdigest() for p, data in files.items()}
        self.break_at: dict[str, int] = {}  # path → bytes after which its transfers fail
        self.sent: list[tuple[str, int]] = []  # (path, first byte)

    def tree(self) -> list[dict[str, object]]:
        entries = [{"type": "directory", "path": "mmimdb", "oid": "0" * 40, "size": 0}]
        for path, data in self.files.items():
            oid = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            entry = {"type": "file", "path": path, "oid": oid, "size": len(data)}
            if path.endswith(".arrow"):  # as on the real hub, small files have only git's hash
                lfs = {"oid": self.hashes[path], "size": len(data), "pointerSize": 134}
                entry["lfs"] = lfs
            entries.append(entry)
        return entries


class HubHandler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:  # noqa: N802 - the name is the interface
        resolve = f"/datasets/{NAME}/resolve/{COMMIT}/"
        if self.path == f"/api/datasets/{NAME}":
            self.reply(json.dumps({"id": NAME, "sha": COMMIT}).encode())
        elif self.path.startswith(f"/api/datasets/{NAME}/tree/{COMMIT}"):
            self.reply(json.dumps(self.server.tree()).encode())
        elif self.path.startswith(resolve):
            self.reply_file(self.path.removeprefix(resolve))
        else:
            self.send_error(404)

    def reply_file(self, path: str) -> None:
        data, limit = self.server.files[path], self.server.break_at.get(path)
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        if limit is not None and start:
            self.send_error(500)  # a broken-off transfer cannot be mended within the same run
            return
        self.server.sent.append((path, start))
        span = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        self.reply(data[start:], 206 if start else 200, span, limit)

    def reply(
        self,
        body: bytes,
        status: int = 200,
        headers: dict[str, str] | None = None,
        limit: int | None = None,
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body[:limit])

    def log_message(self, *_: object) -> None:
        pass


def arrow_bytes(path: Path, rows: int, image: int = 1) -> bytes:
    """An arrow file of the released columns, without image_id, its images random bytes."""
    schema = pa.schema([c for c in arrow.schema(text=arrow.TEXTS, label=arrow.CLASS)][:3])
    schema = schema.append(pa.field("split", pa.string()))
    draw = random.Random(rows)
    content = ({"image": draw.randbytes(image), "text": ["t"], "label": 0, "split": "s"} for _ in range(rows))
    arrow.write_arrow(path, schema, content)
    return path.read_bytes()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A hub that holds memes of the published size, a mask, and files that are not wanted."""
    files = {f"hateful_memes/{split}.arrow": arrow_bytes(tmp_path / split, rows) for split, rows in MEMES.items()}
    files |= {MASK: b"a mask", "hateful_memes/notes.txt": b"n", "Food101/train.arrow": b"x"}
    server = Hub(files)
    Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def run(endpoint: str, target: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Runs the download of the memes, or of what `args` say, against an endpoint."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    env |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(target / "home"), "NO_PROXY": "127.0.0.1"}
    args = args or ("--dataset", "hateful_memes")
    command = [sys.executable, "make_arrow.py", "--download", "--target", str(target), *args]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)


def fetch(hub: Hub, target: Path) -> subprocess.CompletedProcess[str]:
    return run(f"http://127.0.0.1:{hub.server_port}", target)


def error_of(done: subprocess.CompletedProcess[str]) -> str:
    """The last line of a run that must fail without a traceback."""
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


def test_files_and_masks_arrive_once_and_are_counted(hub: Hub, tmp_path: Path) -> None:
    done = fetch(hub, tmp_path)
    assert done.returncode == 0, done.stderr
    for line in ("train.arrow 8500 8500", "val.arrow 500 500", "test.arrow 1000 1000"):
        assert f"hateful_memes/{line}".split() in [row.split() for row in done.stdout.splitlines()]
    assert "licences" in done.stdout
    wanted = [path for path in hub.files if path.startswith("hateful") and "notes" not in path]
    assert sorted(hub.sent) == sorted((path, 0) for path in wanted)
    for path in wanted:
        assert (tmp_path / path).read_bytes() == hub.files[path]

    assert fetch(hub, tmp_path).stdout == done.stdout
    assert len(hub.sent) == len(wanted)  # nothing was sent a second time
    path = tmp_path / "hateful_memes/val.arrow"
    path.write_bytes(bytes(path.stat().st_size))
    assert "val.arrow is not an arrow file" in error_of(fetch(hub, tmp_path))


def test_a_part_that_is_too_long_is_fetched_again(hub: Hub, tmp_path: Path) -> None:
    path = "hateful_memes/val.arrow"
    blob = next(entry["oid"] for entry in hub.tree() if entry["path"] == path)
    part = tmp_path / f"{path}.{blob[:12]}.part"
    part.parent.mkdir()
    part.write_bytes(hub.files[path] + b"more")
    assert fetch(hub, tmp_path).returncode == 0
    assert (tmp_path / path).read_bytes() == hub.files[path]
    assert not part.exists()


def test_a_broken_transfer_is_finished_by_the_next_run(hub: Hub, tmp_path: Path) -> None:
    path = "hateful_memes/train.arrow"
    data = arrow_bytes(tmp_path / "large", MEMES["train"], image=2000)
    hub.files[path], hub.hashes[path] = data, hashlib.sha256(data).hexdigest()
    hub.break_at = {path: CHUNK + 2**20}

    message = error_of(fetch(hub, tmp_path))
    assert "run the same command again" in message
    assert not (tmp_path / path).exists()

    hub.break_at = {}
    done = fetch(hub, tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / path).read_bytes() == data
    assert [start for sent, start in hub.sent if sent == path] == [0, CHUNK]
    assert not list(tmp_path.rglob("*.part"))


def test_a_wrong_number_of_rows_is_refused_with_both(hub: Hub, tmp_path: Path) -> None:
    path = "hateful_memes/test.arrow"
    hub.files[path] = arrow_bytes(tmp_path / "short", 999)
    hub.hashes[path] = hashlib.sha256(hub.files[path]).hexdigest()
    (tmp_path / path).parent.mkdir()
    (tmp_path / path).write_bytes(b"the earlier file")
    message = error_of(fetch(hub, tmp_path))
    assert "999 rows" in message
    assert "test has 1000" in message
    assert (tmp_path / path).read_bytes() == b"the earlier file"


@pytest.mark.parametrize("path", ["hateful_memes/val.arrow", MASK])
def test_damaged_content_is_refused_and_thrown_away(hub: Hub, tmp_path: Path, path: str) -> None:
    whole = hub.files[path]
    tree = hub.tree()
    hub.tree = lambda: tree  # the listing keeps the right hashes
    hub.files[path] = whole[:-1] + bytes([whole[-1] ^ 1])
    assert f"{path} was damaged" in error_of(fetch(hub, tmp_path))
    assert not list((tmp_path / path).parent.glob(f"{Path(path).name}*"))
    hub.files[path] = whole
    assert fetch(hub, tmp_path).returncode == 0


def test_absent_files_and_an_absent_hub_are_named(hub: Hub, tmp_path: Path) -> None:
    endpoint = f"http://127.0.0.1:{hub.server_port}"
    message = error_of(run(endpoint, tmp_path, "--dataset", "food101"))
    assert "has no food101/val.arrow, food101/test.arrow" in message
    assert "mmimdb/train.arrow" in error_of(run(endpoint, tmp_path, "--target", str(tmp_path)))
    assert "cannot fetch" in error_of(run("http://127.0.0.1:9", tmp_path))
    assert hub.sent == []


def test_rows_may_differ_within_the_tolerance_of_the_table(tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    arrow_bytes(path, 199)
    columns = frozenset({"image", "text"})
    table = {"exact": Expected(columns, (1, 2, 200)), "loose": Expected(columns, (1, 2, 200), 0.01)}
    assert check_rows(path, "loose", "test", table) == 199
    with pytest.raises(RawDataError, match="199 rows.*exact test has 200"):
        check_rows(path, "exact", "test", table)
    with pytest.raises(RawDataError, match="199 rows.*loose val has 2"):
        check_rows(path, "loose", "val", table)
    with pytest.raises(RawDataError, match="no column plots"):
        check_rows(path, "mmimdb", "test", {"mmimdb": Expected(frozenset({"plots"}), (1, 1, 1))})
