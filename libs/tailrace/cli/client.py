"""Speaks to a running `tailrace up` over the local HTTP interface."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import requests

from tailrace.cli.errors import AnswerError, BrokenOffError, NotUpError

__all__ = ["Client", "Contact", "find_contact"]

CONTACT_FILE = "up.json"
DATA_FOLDER = ".tailrace"
CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 120.0
"""Longest wait for the next bytes of an answer: queries have a limit of 60 s of their own."""


class Contact(NamedTuple):
    """Where a running `up` can be reached."""

    url: str
    token: str
    file: Path


def find_contact(data_dir: Path | None, start: Path | None = None) -> Contact:
    """The `up` of `data_dir`, else of the nearest `.tailrace` folder from `start` (here) upward that has one.

    Raises:
        NotUpError: retriable; there is none.
    """
    if data_dir is not None:
        files = [data_dir / CONTACT_FILE]
        where = f"uses {data_dir}"
    else:
        here = (start or Path.cwd()).resolve()
        files = [folder / DATA_FOLDER / CONTACT_FILE for folder in (here, *here.parents)]
        where = f"was found from {here} upward"
    for file in files:
        try:
            data = orjson.loads(file.read_bytes())
            return Contact(data["url"], data["token"], file)
        except FileNotFoundError:
            continue
        except PermissionError:
            raise NotUpError(f"of this user: {file} belongs to somebody else") from None
        except (OSError, orjson.JSONDecodeError, KeyError, TypeError):
            continue
    raise NotUpError(where)


class Client:
    """The routes below `/api/local` of one running `up`.

    Every call raises `NotUpError` when nothing answers, and `AnswerError` with the reason when the answer is an error.
    """

    def __init__(self, data_dir: Path | None = None) -> None:
        self.contact = find_contact(data_dir)
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy of the environment is no way to this machine
        self._session.headers["Authorization"] = f"Bearer {self.contact.token}"

    def get(self, path: str, **query: Any) -> Any:
        """The JSON answer of a GET; parameters that are None are left out."""
        return self._json(self._ask("GET", path, query=query))

    def post(self, path: str, body: Mapping[str, Any], *, timeout_s: float | None = ANSWER_TIMEOUT_S) -> Any:
        """The JSON answer of a POST; `timeout_s` None: it may take as long as it takes."""
        return self._json(self._ask("POST", path, body=body, timeout_s=timeout_s))

    def pieces(self, path: str, **query: Any) -> Iterator[bytes]:
        """The answer of a GET as it comes; asked for at once, before the first piece is taken."""
        return self._pieces(self._ask("GET", path, query=query, stream=True))

    def _pieces(self, response: requests.Response) -> Iterator[bytes]:
        with self._broken_off(), contextlib.closing(response):
            yield from response.iter_content(chunk_size=1 << 16)

    def lines(self, path: str, **query: Any) -> Iterator[Any]:
        """The values of an NDJSON answer, asked for at once, as they come for as long as the other side goes on."""
        return self._lines(self._ask("GET", path, query=query, stream=True, timeout_s=None))

    def post_lines(self, path: str, body: Mapping[str, Any]) -> Iterator[Any]:
        """As `lines`, of a POST."""
        return self._lines(self._ask("POST", path, body=body, stream=True, timeout_s=None))

    def _lines(self, response: requests.Response) -> Iterator[Any]:
        with self._broken_off(), contextlib.closing(response):
            # `iter_lines` holds the newest line back until the one after it has begun.
            rest = b""
            for piece in response.iter_content(chunk_size=None):
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    yield orjson.loads(line)

    def _ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        stream: bool = False,
        timeout_s: float | None = ANSWER_TIMEOUT_S,
    ) -> requests.Response:
        try:
            response = self._session.request(
                method,
                f"{self.contact.url}/api/local/{path}",
                params={name: value for name, value in (query or {}).items() if value is not None},
                json=body,
                stream=stream,
                timeout=(CONNECT_TIMEOUT_S, timeout_s),
            )
        except requests.ConnectionError:
            raise NotUpError(f"answers at {self.contact.url} (from {self.contact.file})") from None
        except requests.Timeout:
            raise NotUpError(f"answered at {self.contact.url} within {timeout_s or CONNECT_TIMEOUT_S:g} s") from None
        if response.status_code == 401:
            raise NotUpError(f"of {self.contact.file} is at {self.contact.url}: another one listens there now")
        if not response.ok:
            with contextlib.closing(response):
                raise AnswerError(response.status_code, _detail(response))
        return response

    def _json(self, response: requests.Response) -> Any:
        with self._broken_off():
            return orjson.loads(response.content)

    @contextlib.contextmanager
    def _broken_off(self) -> Iterator[None]:
        try:
            yield
        except requests.RequestException as error:
            raise BrokenOffError(self.contact.url, type(error).__name__) from None


def _detail(response: requests.Response) -> str:
    try:
        return str(orjson.loads(response.content)["detail"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return f"`up` answered {response.status_code}: {response.text[:200].strip() or response.reason}"
