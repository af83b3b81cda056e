"""The study's page, served to this machine alone, by Python's own HTTP server."""

import contextlib
import re
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from stillmotion.errors import ConfigError, FileError
from stillmotion.evaluation.pages import FOLDER, page
from stillmotion.evaluation.study.answers import Answers
from stillmotion.evaluation.study.plan import Study
from stillmotion.evaluation.study.rounds import LONGEST_NAME, Rounds, places_of, rater_name
from stillmotion.evaluation.study.shown import Gallery, Shown

HOST = "127.0.0.1"
_LARGEST_FORM = 1 << 16  # bytes
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
_STATIC = {
    "/style.css": ("style.css", "text/css"),
    "/study.css": ("study.css", "text/css"),
    "/study.js": ("study.js", "text/javascript"),
}


class StudyServer:
    """Serves a study at `url` until it is closed. As a context it answers in the background.

    Raises `ConfigError` where the port is taken, `FileError` where a clip cannot be read.
    """

    def __init__(
        self, study: Study, answers: Answers, *, port: int = 0, progress: Callable[[int, int], None] | None = None
    ) -> None:
        try:
            self._server = _Server((HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            raise ConfigError(f"port: {port} cannot be used ({error}); give another, or 0 for a free one") from error
        try:
            with tempfile.TemporaryDirectory(prefix="stillmotion-") as folder:
                self._server.gallery = Gallery(study, Path(folder), progress)
        except BaseException:
            self._server.server_close()
            raise
        self._serves = False
        self._server.rounds = Rounds(study, answers, self._server.gallery)
        self.url = f"http://{HOST}:{self._server.server_address[1]}/"

    def serve(self) -> None:
        """Answer until `close` is called from elsewhere, or Ctrl-C."""
        self._serves = True
        self._server.serve_forever(poll_interval=0.1)

    def close(self) -> None:
        """Answer no more."""
        if self._serves:  # otherwise there is nobody to wait for, and it would wait for ever
            self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> "StudyServer":
        self._serves = True
        threading.Thread(target=self.serve, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    gallery: Gallery
    rounds: Rounds

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self.shown_at: dict[tuple[str, int], float] = {}

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a browser that has gone away in the midst of an answer."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version, sys_version = "stillmotion", ""
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self) -> None:  # http.server's own name
        """Answer with a page, a file of the page, or a clip."""
        address = urlsplit(self.path)
        if not self._is_ours():
            self._refuse(HTTPStatus.FORBIDDEN)
        elif address.path == "/":
            self._page("start.html", study=self.server.rounds.study, longest=LONGEST_NAME, wrong="")
        elif address.path == "/rate":
            self._show(dict(parse_qsl(address.query)))
        elif address.path in _STATIC:
            name, kind = _STATIC[address.path]
            self._send(Shown((FOLDER / name).read_bytes(), f"{kind}; charset=utf-8"))
        elif (shown := self.server.gallery.get(address.path)) is not None:
            self._send_part(shown)
        else:
            self._refuse(HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:  # http.server's own name
        """Take a name, or an answer."""
        length = self.headers.get("Content-Length", "")
        if not self._is_ours():
            self._refuse(HTTPStatus.FORBIDDEN)
        elif not length.isascii() or not length.isdigit() or int(length) > _LARGEST_FORM:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        else:
            form = dict(parse_qsl(self.rfile.read(int(length)).decode("utf-8", "replace")))
            if self.path == "/start":
                self._start(form)
            elif self.path == "/rate":
                self._take(form)
            else:
                self._refuse(HTTPStatus.NOT_FOUND)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # http.server's own name
        """Say nothing on the terminal."""

    def _start(self, form: Mapping[str, str]) -> None:
        rater = rater_name(form.get("rater", ""))
        if rater:
            self._go_on(rater)
        else:
            wrong = f"Give a name of 1 to {LONGEST_NAME} letters."
            self._page("start.html", study=self.server.rounds.study, longest=LONGEST_NAME, wrong=wrong, status=400)

    def _show(self, asked: Mapping[str, str]) -> None:
        """Show the round that is asked for, else the rater's next one, else the end."""
        rounds, rater = self.server.rounds, rater_name(asked.get("rater", ""))
        if not rater:
            self._to("/")
            return
        number = self._number(asked) or rounds.next_number(rater)
        if number is None:
            self._page("done.html", rater=rater, total=len(rounds.study.items))
            return
        self.server.shown_at[rater, number] = time.monotonic()
        self._page("rate.html", round=rounds.round(rater, number), wrong="")

    def _take(self, form: Mapping[str, str]) -> None:
        rounds, rater, number = self.server.rounds, rater_name(form.get("rater", "")), self._number(form)
        if not rater or number is None:
            self._refuse(HTTPStatus.BAD_REQUEST)
            return
        shown = rounds.round(rater, number)
        began = self.server.shown_at.get((rater, number))
        try:
            wrong = rounds.answer(shown, form, round(time.monotonic() - began, 1) if began else None)
        except FileError as error:
            wrong = f"The answer could not be kept: {error}"
        if wrong:
            again = rounds.round(rater, number, places_of(shown, form))
            self._page("rate.html", round=again, wrong=wrong, status=400)
        else:
            self._go_on(rater)

    def _number(self, said: Mapping[str, str]) -> int | None:
        text = said.get("item", "")
        number = int(text) if re.fullmatch(r"[0-9]{1,6}", text) else 0
        return number if 1 <= number <= len(self.server.rounds.study.items) else None

    def _is_ours(self) -> bool:
        """Return whether the page itself asks: not another site's, nor one under a name that leads to this machine."""
        port = self.server.server_address[1]
        hosts = {f"{HOST}:{port}", f"localhost:{port}"}
        origin = self.headers.get("Origin")
        return self.headers.get("Host") in hosts and (origin is None or origin in {f"http://{host}" for host in hosts})

    def _go_on(self, rater: str) -> None:
        self._to(f"/rate?rater={quote(rater, safe='')}")

    def _to(self, address: str) -> None:
        self._send(Shown(b"", "text/plain"), HTTPStatus.SEE_OTHER, {"Location": address})

    def _refuse(self, status: HTTPStatus) -> None:
        self.close_connection = True
        self._send(Shown(f"{status.value} {status.phrase}\n".encode(), "text/plain; charset=utf-8"), status)

    def _page(self, name: str, *, status: int = 200, **values: Any) -> None:
        self._send(Shown(page(name, **values).encode(), "text/html; charset=utf-8"), HTTPStatus(status))

    def _send_part(self, shown: Shown) -> None:
        """Send a clip, or the bytes of it that the browser asks for: some play nothing that cannot be sought in."""
        size = len(shown.content)
        wanted = re.fullmatch(r"bytes=(\d{1,18})-(\d{0,18})", self.headers.get("Range", ""))
        if wanted is None:
            self._send(shown, headers={"Accept-Ranges": "bytes"})
            return
        start, end = int(wanted[1]), min(int(wanted[2] or size - 1), size - 1)
        if start > end:
            self._send(
                Shown(b"", shown.kind), HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, {"Content-Range": f"bytes */{size}"}
            )
            return
        span = {"Accept-Ranges": "bytes", "Content-Range": f"bytes {start}-{end}/{size}"}
        self._send(Shown(shown.content[start : end + 1], shown.kind), HTTPStatus.PARTIAL_CONTENT, span)

    def _send(self, shown: Shown, status: HTTPStatus = HTTPStatus.OK, headers: Mapping[str, str] | None = None) -> None:
        with contextlib.suppress(ConnectionError):
            self.send_response(status)
            fixed = {
                "Content-Type": shown.kind,
                "Content-Length": str(len(shown.content)),
                "Content-Security-Policy": _POLICY,
                "X-Content-Type-Options": "nosniff",
                "Referrer-Policy": "same-origin",  # with none at all, a form comes without its origin
                "Cache-Control": "no-store",
                **(headers or {}),
            }
            for name, value in fixed.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(shown.content)
