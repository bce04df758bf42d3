"""Shows the site on this machine: over HTTP on loopback, to nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import Any

from flows.errors import UsageError

LOOPBACK = "127.0.0.1"

HEADERS = {
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:;"
    " object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
"""What every answer carries. Each page says more strictly what it may run."""


class Pages(SimpleHTTPRequestHandler):
    """Files of the site, and nothing else: no lists of folders, no other names of this machine.

    A page of another site that reaches this port by a name of its own gets nothing.
    """

    server: ThreadingHTTPServer

    def send_head(self) -> BytesIO | Any:
        """Answer for a file of the site, asked for by this machine's own name."""
        port = self.server.server_port
        if self.headers.get("Host") not in (f"{LOOPBACK}:{port}", f"localhost:{port}"):
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
            return None
        return super().send_head()

    def list_directory(self, path: Any) -> None:  # noqa: ARG002 - the base class calls it so
        """Folders without an index are not there."""
        self.send_error(HTTPStatus.NOT_FOUND)

    def end_headers(self) -> None:
        """Every answer carries the headers."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing of requests."""


def server(folder: Path, port: int = 0) -> ThreadingHTTPServer:
    """A server of a folder on loopback; port 0 takes any that is free.

    Raises:
        UsageError: the port is taken or may not be used.
    """
    try:
        return ThreadingHTTPServer((LOOPBACK, port), partial(Pages, directory=str(folder)))
    except OSError as error:
        raise UsageError(
            f"port {port} cannot be used",
            error.strerror or str(error),
            "name another with --port, or leave it out to take one that is free",
        ) from None


def address_of(serving: ThreadingHTTPServer) -> str:
    """Where a browser finds the site."""
    return f"http://{LOOPBACK}:{serving.server_port}/"


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The site's address for as long as it is shown, from a thread of this process."""
    with server(folder) as serving:
        thread = Thread(target=serving.serve_forever, daemon=True)
        thread.start()
        try:
            yield address_of(serving)
        finally:
            serving.shutdown()
            thread.join()
