"""Downloads of a CLIP from a small hub on the loopback interface."""

import hashlib
import itertools
import json
import sys
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
import torch
from safetensors.torch import load_file

from clip.modules.backbones.clip import PUBLISHED
from clip.modules.backbones.clip_tokenizer import OPENAI_VOCABULARY, Tokenizer, vocabulary
from clip.modules.backbones.tensor_files import sha256_of
from tests import forked, tiny

COMMIT = "ab" * 20
WEIGHTS = "model.safetensors"
NAME = "somebody/a.clip-B_16"
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
    """Serves what the client asks of one repository: its commit, its tree and its files."""

    daemon_threads = True

    def __init__(self, name: str, files: dict[str, bytes]):
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.name, self.files = name, files
        self.break_at = None  # bytes after which the transfer of the weights fails
        self.requests: list[str] = []

    def entry(self, path: str) -> dict:
        data = self.files[path]
        oid = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        entry = {"type": "file", "path": path, "rfilename": path, "oid": oid, "blobId": oid, "size": len(data)}
        if path.endswith((".safetensors", ".bin")):
            sha256 = hashlib.sha256(data).hexdigest()
            entry["lfs"] = {"oid": sha256, "sha256": sha256, "size": len(data), "pointerSize": 134}
        return entry


class HubHandler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self):  # noqa: N802 - the name is the interface
        self.do_GET()

    def do_GET(self):  # noqa: N802
        path, hub = self.path.partition("?")[0], self.server
        hub.requests.append(path)
        entries = [hub.entry(name) for name in hub.files]
        info = {"id": hub.name, "sha": COMMIT, "siblings": entries}
        listings = {
            f"/api/models/{hub.name}": info,
            f"/api/models/{hub.name}/revision/main": info,
            f"/api/models/{hub.name}/tree/{COMMIT}": entries,
        }
        repository, _, rest = path[1:].partition("/resolve/")
        name = rest.partition("/")[2]
        if path in listings:
            self.reply(json.dumps(listings[path]).encode())
        elif repository == hub.name and name in hub.files:
            entry = hub.entry(name)
            headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{entry.get("lfs", entry)["oid"]}"'}
            self.reply(hub.files[name], headers, hub.break_at if name == WEIGHTS else None)
        elif repository == hub.name:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self.send_error(404)

    def reply(self, body: bytes, headers: dict | None = None, limit=None):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:limit])

    def log_message(self, *_):
        pass


@pytest.fixture
def serve(clip_folder):
    """Starts a hub with the tiny CLIP, or other files, and with some that are not wanted."""
    hubs = []

    def start(name=NAME, files=None):
        files = files or {path.name: path.read_bytes() for path in clip_folder.iterdir()}
        hub = Hub(name, {"README.md": b"#", "flax_model.bin": b"x"} | files)
        Thread(target=hub.serve_forever, daemon=True).start()
        hubs.append(hub)
        return hub

    yield start
    for hub in hubs:
        hub.shutdown()
        hub.server_close()


def forget_hub():
    """Import anew what reads the environment when it is imported, and what uses it."""
    for name in list(sys.modules):
        if name.partition(".")[0] in ("huggingface_hub", "clip"):
            del sys.modules[name]


@pytest.fixture
def load(tmp_path):
    """Load a CLIP in a process of its own: its SHA-256 or the message of the refusal."""
    program = tmp_path / "load.py"
    program.write_text(LOAD)

    def inner(hub, cache, vit=NAME, **env):
        env |= {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HOME": str(cache), "NO_PROXY": "127.0.0.1"}
        done = forked.start(vit, program=program, env=env, before=forget_hub).wait()
        assert "Traceback" not in done.stderr, done.stderr
        return done.stderr.splitlines()[-1] if done.returncode else done.stdout.strip()

    return inner


def test_a_download_can_be_repeated_and_then_needs_no_network(serve, load, clip_folder, tmp_path):
    hub, sha256 = serve(PUBLISHED["ViT-B/16"]), sha256_of(clip_folder / WEIGHTS)
    hub.break_at = 10_000
    message = load(hub, tmp_path, "ViT-B/16")
    assert "vit='ViT-B/16'" in message
    assert hub.name in message
    hub.break_at = None
    assert load(hub, tmp_path, "ViT-B/16") == sha256
    fetched = {path.rpartition("/")[2] for path in hub.requests if "/resolve/" in path}
    assert fetched == {WEIGHTS, "config.json", "vocab.json", "merges.txt"}
    requests = len(hub.requests)
    assert load(hub, tmp_path, "ViT-B/16", HF_HUB_OFFLINE="1") == sha256
    assert len(hub.requests) == requests


def test_a_repository_with_a_pickle_alone(serve, load, clip_folder, tmp_path):
    files = {path.name: path.read_bytes() for path in clip_folder.iterdir() if path.name != WEIGHTS}
    torch.save(load_file(clip_folder / WEIGHTS), tmp_path / "x.bin")
    files["pytorch_model.bin"] = (tmp_path / "x.bin").read_bytes()
    hub = serve(files=files)
    assert load(hub, tmp_path) == sha256_of(tmp_path / "x.bin")
    assert load(hub, tmp_path, HF_HUB_OFFLINE="1") == sha256_of(tmp_path / "x.bin")


def test_a_file_with_openais_vocabulary_gets_openais_tokenizer(serve, load, tmp_path):
    characters = [token for token in vocabulary([]) if len(token) == 1]
    merges = list(itertools.product(characters, characters))[: OPENAI_VOCABULARY - 514]
    Tokenizer(vocabulary(merges), merges).save(tmp_path)
    names = ("vocab.json", "merges.txt")
    hub = serve(PUBLISHED["ViT-B/16"], {name: (tmp_path / name).read_bytes() for name in names})
    file = tmp_path / "lone" / "model.pt"
    file.parent.mkdir()
    torch.save(tiny.clip_state(replace(tiny.SIZES, vocabulary=OPENAI_VOCABULARY)), file)
    config = {"quick_gelu": True, "vision_cfg": {}, "text_cfg": {"heads": 1}}
    (file.parent / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    assert load(hub, tmp_path / "cache", str(file)) == sha256_of(file)
    message = load(hub, tmp_path / "empty", str(file), HF_HUB_OFFLINE="1")
    assert f"{file.parent} has no tokenizer" in message
    assert "vocab.json and merges.txt" in message


def test_an_absent_repository_is_named(serve, load, tmp_path):
    assert "nobody/nothing" in load(serve(), tmp_path, "nobody/nothing")
