"""The command serve: a page on this machine that shows what a model says of an image and a text.

Python's own HTTP server does: there is one page, one user and one question at a time, and nothing
more to install or to keep up to date.
"""

import base64
import binascii
import ipaddress
import json
import socket
import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from clip.inference.predict import states_table
from clip.inference.predictor import Predictor
from clip.utils.errors import UserError

PAGE = Path(__file__).parent / "page"
FILES = {  # path -> file and its type
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
MEGABYTE = 2**20
MOST_BYTES = 10 * MEGABYTE  # of an image file; page.js has the same number
LONGEST_NUMBER = 18  # digits of a length
MOST_BODY = MOST_BYTES * 4 // 3 + MEGABYTE  # in base64, with a text
MOST_DRAINED = 64 * MEGABYTE  # of a refused body, so that the browser reads the answer
SECONDS = 30  # that a connection may stand still
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class RefusedError(Exception):
    """An answer in words with a status that is not OK."""

    def __init__(self, status: HTTPStatus, words: str):
        super().__init__(words)
        self.status = status


class Server(ThreadingHTTPServer):
    """Serves the page and its one question; the model answers one at a time.

    Args:
        address: host and port to listen at, port 0 for a free one.
        predictor: answers.

    Raises:
        UserError: it cannot listen there.
    """

    daemon_threads = True

    def __init__(self, address: tuple[str, int], predictor: Predictor):
        host, port = address
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__(address, Handler)
        except (OSError, UnicodeError) as error:
            raise UserError(f"cannot listen at host={host} port={port} ({error}); give another") from None
        self.predictor, self.lock = predictor, threading.Lock()
        self.open_to_others = not is_loopback(self.server_address[0])
        self.names = {host, socket.gethostname(), socket.getfqdn(), "localhost"}

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print a fault of ours; a browser that went away is none."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        """Where a browser finds the page."""
        host, port = self.server_address[:2]
        return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"

    def is_named(self, host: str) -> bool:
        """Tell whether a browser was sent here by its user: by an address, or a name of ours.

        A page of another site can have its own name lead here, but no number.
        """
        if not self.open_to_others:
            return is_loopback(host)
        return is_address(host) or host.lower() in {name.lower() for name in self.names}

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """Answer {"image": base64 or null, "text": a string or null}.

        Returns:
            "classes", their names; "states", "complete", "text" or "image" (what is missing) ->
            "probabilities" and the "predicted" classes in words.

        Raises:
            RefusedError: there is nothing to answer, or too much.
            UserError: the image cannot be read.
        """
        image, text = question.get("image"), question.get("text")
        with self.lock:  # one decoded image and one forward pass at a time
            sample = self.predictor.read(None if image is None else _image(image), text, "")
            table = states_table(self.predictor, sample)
        names = self.predictor.class_names
        values = table[names].to_numpy().tolist()
        rows = zip(table["missing"], values, table["predicted"], strict=True)
        states = {state: {"probabilities": row, "predicted": said} for state, row, said in rows}
        return {"classes": names, "states": states}


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    timeout = SECONDS
    server_version, sys_version = "DCP", ""

    def do_GET(self) -> None:  # noqa: N802  the name that http.server calls
        """Send a file of the page."""
        if not self._is_addressed() or self.path not in FILES:
            return self._send_json(HTTPStatus.NOT_FOUND, {"error": "there is no such page"})
        name, kind = FILES[self.path]
        return self._send(HTTPStatus.OK, kind, (PAGE / name).read_bytes())

    def do_POST(self) -> None:  # noqa: N802  the name that http.server calls
        """Answer the page's question."""
        try:
            self._send_json(HTTPStatus.OK, self.server.answer(self._question()))
        except RefusedError as refused:
            self._send_json(refused.status, {"error": str(refused)})
        except UserError as error:
            self._send_json(HTTPStatus.UNPROCESSABLE_ENTITY, {"error": str(error)})

    def _is_addressed(self) -> bool:
        """Tell whether the request names this server."""
        try:
            host = urlsplit(f"//{self.headers.get('Host', '')}").hostname or ""
        except ValueError:
            host = ""
        return self.server.is_named(host)

    def _question(self) -> dict[str, Any]:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or len(length) > LONGEST_NUMBER:
            self.close_connection = True
            raise RefusedError(HTTPStatus.LENGTH_REQUIRED, "the request does not say how long it is")
        # Another site's page may post here unasked, but not as JSON.
        kind = self.headers.get_content_type()
        if self.path != "/predict" or not self._is_addressed() or kind != "application/json":
            self._drain(int(length))
            raise RefusedError(HTTPStatus.NOT_FOUND, "post JSON to /predict at this address")
        if int(length) > MOST_BODY:
            self._drain(int(length))
            raise _too_long()
        try:
            question = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            question = None
        if not isinstance(question, dict):
            raise RefusedError(HTTPStatus.BAD_REQUEST, "the request is no JSON object")
        return question

    def _drain(self, length: int) -> None:
        """Read a body away; a browser that is cut off while it sends shows no answer."""
        self.close_connection = True
        left = min(length, MOST_DRAINED)
        while left > 0 and (block := self.rfile.read(min(left, MEGABYTE))):
            left -= len(block)

    def _send_json(self, status: HTTPStatus, content: dict[str, Any]) -> None:
        self._send(status, "application/json", json.dumps(content).encode())

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def end_headers(self) -> None:
        """Add what every answer has, those of http.server too."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, form: str, *values: Any) -> None:
        """Write no line a request; what goes wrong is said on the page."""


def _image(encoded: Any) -> bytes:
    try:
        image = base64.b64decode(encoded, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise RefusedError(HTTPStatus.BAD_REQUEST, "the image is not in base64") from None
    if len(image) > MOST_BYTES:
        raise _too_long()
    return image


def _too_long() -> RefusedError:
    words = f"this is over {MOST_BYTES // MEGABYTE} MB; give a smaller image"
    return RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, words)


def is_address(host: str) -> bool:
    """Tell a number from a name."""
    try:
        return bool(ipaddress.ip_address(host))
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Tell whether a name or address means this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def serve(config: dict[str, Any], given: set[str]) -> None:
    """Serve the page until Ctrl-C.

    Raises:
        UserError: there is no such checkpoint or backbone, or the address is taken.
    """
    if not config["load_path"]:
        raise UserError("serve needs load_path=, a checkpoint or the folder of a run")
    predictor = Predictor.from_config(config, given)
    with Server((config["host"], config["port"]), predictor) as server:
        if server.open_to_others:
            print(f"anybody who reaches host={config['host']} can use this page")
        print(f"open {server.url} in a browser; Ctrl-C ends it", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
