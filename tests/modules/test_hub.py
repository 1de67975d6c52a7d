"""Downloads of a CLIP from a small hub on the loopback interface."""

import hashlib
import itertools
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from clip.modules.backbones.clip_config import OPENAI_TOKENIZER
from safetensors.torch import load_file

from clip.modules.backbones.clip import PUBLISHED, save_clip
from clip.modules.backbones.clip_tokenizer import (
    OPENAI_VOCABULARY,
    Tokenizer,
    train_tokenizer,
    vocabulary,
)
from clip.modules.backbones.tensor_files import sha256_of
from tests import tiny

ROOT = Path(__file__).resolve().parents[2]
COMMIT = "ab" * 20
WEIGHTS = "model.safetensors"
GRID = 160  # a large table of positions is the cheapest way to large weights
NAME = "somebody/a.clip-B_16"
CHUNK = 10 * 2**20  # the client keeps a broken-off transfer in steps of this size
LOAD = """
import sys
from clip.utils.errors import UserError
from clip.modules.backbones.clip import load_clip
try:
    print(load_clip(sys.argv[1]).sha256)
except UserError as error:
    sys.exit(str(error))
"""


class Hub(ThreadingHTTPServer):
    """Serves what the client asks of one repository: its commit, its tree, ranges of its files."""

    daemon_threads = True

    def __init__(self, name: str, files: dict[str, bytes]):
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.name, self.files = name, files
        self.large = {path: hashlib.sha256(data).hexdigest() for path, data in files.items()
                      if path.endswith((".safetensors", ".bin"))}  # fmt: skip
        self.break_at = None  # bytes after which a transfer of a large file fails
        self.sent: list[tuple[str, int]] = []  # large files: (path, first byte)
        self.asked: list[str] = []  # every address
        self.processes = 1  # that transfers wait for

    def entry(self, path: str) -> dict:
        data = self.files[path]
        oid = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        entry = {"type": "file", "path": path, "rfilename": path, "oid": oid, "blobId": oid,
                 "size": len(data)}  # fmt: skip
        if path in self.large:
            sha256 = self.large[path]
            entry["lfs"] = {"oid": sha256, "sha256": sha256, "size": len(data), "pointerSize": 134}
        return entry


class HubHandler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self):  # noqa: N802 - the name is the interface
        self.do_GET()

    def do_GET(self):  # noqa: N802
        path, hub = self.path.partition("?")[0], self.server
        hub.asked.append(path)
        entries = [hub.entry(name) for name in hub.files]
        info = {"id": hub.name, "sha": COMMIT, "siblings": entries}
        listings = {f"/api/models/{hub.name}": info, f"/api/models/{hub.name}/revision/main": info,
                    f"/api/models/{hub.name}/tree/{COMMIT}": entries}  # fmt: skip
        owner_and_name, _, rest = path[1:].partition("/resolve/")
        name = rest.partition("/")[2]
        if path in listings:
            self.reply(json.dumps(listings[path]).encode())
        elif owner_and_name == hub.name and name in hub.files:
            self.reply_file(name)
        else:
            self.send_error(404)

    def reply_file(self, name: str):
        data, hub = self.server.files[name], self.server
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        etag = hub.large.get(name, hub.entry(name)["oid"])
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{etag}"'}
        limit = None
        if name in hub.large and self.command == "GET":
            if hub.break_at is not None and start:
                self.send_error(500)  # a broken-off transfer cannot be mended within the same run
                return
            limit = hub.break_at
            hub.sent.append((name, start))
            # Not before every process has come: each of them would fetch the file if it could.
            while hub.asked.count(f"/api/models/{hub.name}") < hub.processes:
                time.sleep(0.1)
            time.sleep(hub.processes - 1)
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self.reply(data[start:], 206 if start else 200, headers, limit)

    def reply(self, body: bytes, status: int = 200, headers: dict | None = None, limit=None):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:limit])

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A CLIP whose weights are larger than one step of a transfer."""
    folder = tmp_path_factory.mktemp("clip") / "x"
    tokenizer = train_tokenizer(tiny.TEXTS * 3, 560)
    state = tiny.clip_state(replace(tiny.SIZES, vocabulary=len(tokenizer.vocab)))
    state["visual.positional_embedding"] = torch.randn(GRID**2 + 1, tiny.SIZES.image_width)
    save_clip(folder, state, "quick_gelu", tokenizer)
    assert CHUNK < (folder / WEIGHTS).stat().st_size < 2 * CHUNK
    return folder


@pytest.fixture
def serve(folder):
    """Starts a hub with that CLIP, or other files, and with some that are not wanted."""
    hubs = []

    def start(name=NAME, files=None):
        files = files or {path.name: path.read_bytes() for path in folder.iterdir()}
        hub = Hub(name, {"README.md": b"#", "flax_model.bin": b"x"} | files)
        Thread(target=hub.serve_forever, daemon=True).start()
        hubs.append(hub)
        return hub

    yield start
    for hub in hubs:
        hub.shutdown()
        hub.server_close()


def start(hub, cache, vit=NAME, **env):
    """Load a CLIP in a process of its own, whose cache is empty at first."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    env |= {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HOME": str(cache),
            "NO_PROXY": "127.0.0.1"}  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-c", LOAD, vit], cwd=ROOT, env=inherited | env, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def printed(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out.strip()


def refused(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "Traceback" not in err, err
    return err.splitlines()[-1]


def cached(cache):
    """Where the weights lie in the cache: blobs, under their checksum."""
    return [path for path in cache.rglob("blobs/*") if path.stat().st_size > CHUNK]


def test_a_broken_download_goes_on_and_then_needs_no_network(serve, folder, tmp_path):
    hub, sha256 = serve(), sha256_of(folder / WEIGHTS)
    hub.break_at = CHUNK + 2**20
    message = refused(start(hub, tmp_path))
    assert "run it again" in message
    assert f"vit='{NAME}'" in message
    assert not list(tmp_path.rglob(f"blobs/{sha256}"))

    hub.break_at = None
    assert printed(start(hub, tmp_path)) == sha256
    assert hub.sent == [(WEIGHTS, 0), (WEIGHTS, CHUNK)]
    assert [path.name for path in cached(tmp_path)] == [sha256]

    assert printed(start(hub, tmp_path)) == sha256
    asked = len(hub.asked)
    assert printed(start(hub, tmp_path, HF_HUB_OFFLINE="1")) == sha256
    assert len(hub.asked) == asked
    assert len(hub.sent) == 2


def test_processes_of_a_node_share_one_transfer_of_a_published_name(serve, folder, tmp_path):
    hub = serve(PUBLISHED["ViT-B/16"])
    hub.processes = 3
    processes = [start(hub, tmp_path, "ViT-B/16") for _ in range(hub.processes)]
    assert {printed(process) for process in processes} == {sha256_of(folder / WEIGHTS)}
    assert hub.sent == [(WEIGHTS, 0)]


def test_what_was_damaged_on_the_way_or_in_the_cache_is_refused(serve, tmp_path):
    hub = serve()
    whole = hub.files[WEIGHTS]
    hub.files[WEIGHTS] = whole[:-1] + bytes([whole[-1] ^ 1])
    assert "damaged on the way" in refused(start(hub, tmp_path))
    assert cached(tmp_path) == []

    hub.files[WEIGHTS] = whole
    printed(start(hub, tmp_path))
    (blob,) = cached(tmp_path)
    blob.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "was damaged" in refused(start(hub, tmp_path))
    assert printed(start(hub, tmp_path)) == hub.large[WEIGHTS]


def test_a_repository_with_a_pickle_alone(serve, folder, tmp_path):
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != WEIGHTS}
    torch.save(load_file(folder / WEIGHTS), tmp_path / "x.bin")
    files["pytorch_model.bin"] = (tmp_path / "x.bin").read_bytes()
    hub = serve(files=files)
    assert printed(start(hub, tmp_path)) == hub.large["pytorch_model.bin"]


def test_a_file_with_openais_vocabulary_gets_openais_tokenizer(serve, tmp_path):
    letters = [token for token in vocabulary([]) if len(token) == 1]
    merges = list(itertools.product(letters, letters))[: OPENAI_VOCABULARY - 514]
    Tokenizer(vocabulary(merges), merges).save(tmp_path)
    names = ("vocab.json", "merges.txt")
    hub = serve(OPENAI_TOKENIZER, {name: (tmp_path / name).read_bytes() for name in names})
    file = tmp_path / "lone" / "model.pt"
    file.parent.mkdir()
    torch.save(tiny.clip_state(replace(tiny.SIZES, vocabulary=OPENAI_VOCABULARY)), file)
    config = {"quick_gelu": True, "vision_cfg": {}, "text_cfg": {"heads": 1}}
    (file.parent / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    assert printed(start(hub, tmp_path / "cache", str(file))) == sha256_of(file)
    message = refused(start(hub, tmp_path / "empty", str(file), HF_HUB_OFFLINE="1"))
    assert f"{file.parent} has no tokenizer" in message
    assert "vocab.json and merges.txt" in message


def test_an_absent_repository_is_named(serve, tmp_path):
    message = refused(start(serve(), tmp_path, "nobody/nothing"))
    assert "vit='nobody/nothing' is no local file or folder" in message
    assert "cannot download nobody/nothing" in message
