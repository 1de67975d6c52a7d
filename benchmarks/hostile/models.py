"""Readers of weights, checkpoints, requests and experiments."""

import json
import shutil
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import torch
from clip.modules.adapter import load_adapter

from benchmarks.hostile.files import Reader, put
from benchmarks.startup import small_clip
from clip.engine import trainer as runs
from clip.experiments.spec import FOLDER, load_experiment
from clip.inference.predictor import Predictor
from clip.inference.web import Server
from clip.modules import build_model
from clip.modules.backbones.clip import find_activation, find_tokenizer, load_clip
from clip.modules.backbones.clip_convert import ClipSizes, convert_clip
from clip.modules.backbones.tensor_files import read_tensors
from clip.modules.objectives import TASKS
from clip.modules.released.dcp import our_names
from clip.transforms import ClipTransform
from clip.utils.errors import UserError

CPU = {"accelerator": "cpu", "devices": 1, "precision": "32-true"}


def weights(folder: Path) -> Reader:
    """A CLIP in each format."""
    clip = small_clip(folder / "clip")
    state = dict(load_clip(str(clip)).state)
    files = [clip / "model.safetensors", folder / "w.pt", folder / "script.pt"]
    torch.save(state, files[1])
    holder = torch.nn.Module()
    for name, tensor in state.items():
        holder.register_buffer(name.replace(".", "_"), tensor)
    torch.jit.script(holder).save(str(files[2]))

    def read(path: Path) -> None:
        tensors = read_tensors(path)
        if path != files[2]:  # its names have no dots
            convert_clip(tensors)

    return Reader(files, read)


def beside(folder: Path) -> Reader:
    """What stands beside a CLIP."""
    clip = small_clip(folder / "clip")
    sizes = ClipSizes.of(load_clip(str(clip)).state)
    model = {"vision_cfg": {"width": 64}, "text_cfg": {"width": 64}, "quick_gelu": True}
    other = put(clip / "open_clip_config.json", {"model_cfg": model})

    def read(_: Path) -> None:
        find_activation(clip, sizes, "00", None)
        find_tokenizer(clip, sizes)(["a film"])

    return Reader([clip / "config.json", other, clip / "vocab.json", clip / "merges.txt"], read)


def checkpoints(folder: Path) -> Reader:
    """A checkpoint of ours, and one of the released code."""
    state = load_clip(str(small_clip(folder / "clip"))).state
    model = build_model(state, num_classes=3, prompt_length=6, prompt_depth=2)
    released = model.state_dict()
    theirs = {}
    for ours, names in our_names(2):
        rows = released.pop(ours)
        rows = rows if len(names) > 1 else rows[None]
        theirs |= {f"model.{name}": row for name, row in zip(names, rows, strict=True)}
    for leaf in ("weight", "bias"):
        theirs[f"model.food101_classifier.{leaf}"] = released.pop(f"classifier.{leaf}")
    theirs |= {f"model.{k}": v for k, v in released.items() if not k.startswith("prompts.")}
    theirs["model.logit_scale"] = torch.tensor(1.0)
    files = [folder / "ours.pt", folder / "released.pt"]
    torch.save({"model_config": {"task": "food101"}, "state_dict": model.adapter_state_dict()}, files[0])
    torch.save({"state_dict": theirs, "callbacks": {Reader: 1}}, files[1])

    def read(path: Path) -> None:
        load_adapter(model, runs.read_checkpoint(path, 0)["state_dict"], path)

    return Reader(files, read)


class _Loud(Server):
    """Remembers what the server would print as a traceback."""

    fault: BaseException | None = None

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        self.fault = None if isinstance(error, ConnectionError) else error


def requests(folder: Path) -> Reader:
    """A request to the page."""
    frozen = load_clip(str(small_clip(folder / "clip")))
    model = build_model(frozen.state, num_classes=3, prompt_length=6, prompt_depth=2)
    predictor = Predictor(model, frozen.tokenizer, ClipTransform(frozen.sizes.image_size),
                          TASKS["food101"], ["x", "y", "z"], CPU, 4, {})  # fmt: skip
    server = _Loud(("127.0.0.1", 0), predictor)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    body = json.dumps({"image": None, "text": "a film"}).encode()
    head = "POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    files = [put(folder / "post.http", head.encode() + body),
             put(folder / "get.http", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
             put(folder / "body.json", {"image": None, "text": "a film"})]  # fmt: skip

    def read(path: Path) -> None:
        data = path.read_bytes()
        if path.suffix == ".json":
            length = str(len(data)).encode()
            data = head.encode().replace(str(len(body)).encode(), length) + data
        server.fault = None
        if said := _asked(server.server_address, data):
            status = int(said.split(b" ", 2)[1]) if said.startswith(b"HTTP/") else 200
            if 400 <= status < 500 or status in (501, 505):
                raise UserError(str(status))
        if server.fault:
            raise server.fault

    return Reader(files, read)


def _asked(address: tuple[str, int], data: bytes) -> bytes:
    with socket.create_connection(address, timeout=10) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            said = b""
            while block := connection.recv(65_536):
                said += block
        except OSError:  # it was refused before all was sent
            return b""
    return said


def experiments(folder: Path) -> Reader:
    """An experiment in YAML."""
    files = [Path(shutil.copy(path, folder)) for path in sorted(FOLDER.glob("*.yaml"))[:4]]
    return Reader(files, load_experiment)
