"""The serve command: a local web page that classifies an image, a text, or both."""

import contextlib
import ipaddress
import socket
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from clip.cli.schema import Config
from clip.inference.predictor import Predictor
from clip.inference.samples import read_sample
from clip.utils.errors import UserError

try:
    import python_multipart  # noqa: F401  FastAPI reads uploads with it
    import uvicorn
    from anyio import CapacityLimiter, to_thread
    from fastapi import FastAPI, Form, HTTPException, Request, Response, UploadFile
    from fastapi.staticfiles import StaticFiles
    from starlette.middleware.body_limit import RequestBodyLimitMiddleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
except ImportError:  # optional: requirements-serve.txt
    FastAPI = None

PAGE = Path(__file__).parent / "page"
MAX_BYTES = 11 * 2**20  # of a request: an image of 10 MB, as page.js allows, and a text
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src data: blob:; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


def create_app(predictor: Predictor, hosts: list[str]) -> "FastAPI":
    """Create the web application, which classifies one request at a time.

    Requests under host names other than ``hosts`` are rejected, which prevents DNS rebinding.
    """
    app, limiter = FastAPI(openapi_url=None), CapacityLimiter(1)
    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=MAX_BYTES)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)

    @app.middleware("http")
    async def protect(request: Request, call_next: Any) -> Response:
        origin = request.headers.get("origin")  # browsers send it with every post
        foreign = origin is not None and urlsplit(origin).netloc != request.headers.get("host")
        response = Response("request of another site", 403) if foreign else await call_next(request)
        response.headers.update(HEADERS)
        return response

    @app.get("/model")
    async def describe() -> dict[str, str]:
        return predictor.source

    @app.post("/predict")
    async def predict(image: UploadFile | None = None, text: Annotated[str, Form()] = "") -> dict[str, Any]:
        data = await image.read() if image else None
        return await to_thread.run_sync(classify, data, text, limiter=limiter)

    def classify(image: bytes | None, text: str) -> dict[str, Any]:
        try:
            frame = predictor.classify(read_sample(image, text, predictor.transform).cases())
        except UserError as error:
            raise HTTPException(422, str(error)) from None
        rows = zip(frame["missing"], frame[predictor.class_names].to_numpy().tolist(), frame["predicted"], strict=True)
        cases = {missing: {"probabilities": row, "predicted": names} for missing, row, names in rows}
        return {"classes": predictor.class_names, "cases": cases}

    app.mount("/", StaticFiles(directory=PAGE, html=True))
    return app


def serve(config: Config) -> None:
    """Serve the page until Ctrl-C."""
    if FastAPI is None:
        raise UserError("serve needs optional packages; run pip install -r requirements-serve.txt")
    predictor, host, port = Predictor.from_config(config), config.serve.host, config.serve.port
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, UnicodeError) as error:
        raise UserError(f"cannot listen at serve.host={host} serve.port={port} ({error}); change them") from None
    address, port = listener.getsockname()[:2]
    name, ip = f"[{address}]" if ":" in address else address, ipaddress.ip_address(address)
    # An unspecified address, such as 0.0.0.0, is every address of this machine, under names that it does not know.
    hosts = ["*"] if ip.is_unspecified else [name, host, "localhost", socket.gethostname(), socket.getfqdn()]
    if not ip.is_loopback:
        print(f"serve.host={host}: anyone who can reach this address can use the page")
    print(f"open http://{name}:{port}/ in a browser; press Ctrl-C to stop", flush=True)
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn finishes open requests, then raises it again
        uvicorn.Server(uvicorn.Config(create_app(predictor, hosts), log_level="warning")).run(sockets=[listener])
