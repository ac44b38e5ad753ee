"""The control plane as the command line sees it: reads over HTTP, each failure one line that says what to do."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

import requests
from requests.auth import AuthBase

from cli.failures import USAGE, Failed
from cli.settings import Settings
from cli.tokens import read_token

CONNECT_SECONDS: Final = 5.0
READ_SECONDS: Final = 30.0
PAGE: Final = 1000


class Unreachable(Failed):
    """Nobody answered, or not to the end: a later try may do."""


class NotFound(Failed):
    """The control plane knows nothing of that name."""


class Gone(Failed):
    """The cursor or index is of another epoch, or its history was cut: start anew."""


class Busy(Unreachable):
    """The control plane has no room for another watcher now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A JSON answer and the store's change counter it is of."""

    body: Any
    index: int


class Client:
    """Reads from one control plane. No proxies, no `.netrc`: only what the options say."""

    def __init__(self, settings: Settings, *, read_seconds: float = READ_SECONDS) -> None:
        """Prepares; connects with the first request. Failed if address, token file or certificates are unusable."""
        self.address = _address(settings.address)
        self._read_seconds = read_seconds
        self._session = requests.Session()
        self._session.trust_env = False
        if settings.token_file is not None:
            self._session.auth = _Bearer(read_token(settings.token_file))
        self._session.verify = _existing(settings.tls_ca, "--tls-ca") or True
        certificate, key = (
            _existing(settings.tls_cert, "--tls-cert"),
            _existing(settings.tls_key, "--tls-key"),
        )
        if certificate is not None:
            self._session.cert = certificate if key is None else (certificate, key)

    def get(self, path: str, *, wait_seconds: float = 0.0, **parameters: object) -> Answer:
        """One JSON document. With `index=` the server may hold the request for *wait_seconds*."""
        return self._get(path, parameters, wait_seconds)

    def list(
        self,
        path: str,
        *,
        at_most: int | None = None,
        newer_than: int = 0,
        wait_seconds: float = 0.0,
        **parameters: object,
    ) -> Answer:
        """All items of a list, page after page (at most *at_most*), as one list; the index is the first page's.

        With *newer_than* the server may hold the first page back for *wait_seconds*, until something is newer.
        """
        limit = PAGE if at_most is None else min(PAGE, at_most)
        answer = self._get(path, {**parameters, "limit": limit, "index": newer_than or None}, wait_seconds)
        first, items = answer, _items(self.address + path, answer.body)
        while answer.body["next"] is not None and (at_most is None or len(items) < at_most):
            answer = self._get(path, {**parameters, "limit": limit, "after": answer.body["next"]})
            items += _items(self.address + path, answer.body)
        return Answer(body=items[:at_most], index=first.index)

    @contextmanager
    def stream(
        self,
        path: str,
        *,
        read_seconds: float | None = READ_SECONDS,
        headers: Mapping[str, str] | None = None,
        **parameters: object,
    ) -> Iterator[Iterator[bytes]]:
        """The answer's bytes as they arrive; *read_seconds* None waits for ever between them."""
        with self._request(path, parameters, read_seconds, headers) as answer:
            yield self._chunks(answer)

    def _get(self, path: str, parameters: Mapping[str, object], wait_seconds: float = 0.0) -> Answer:
        if wait_seconds:
            parameters = {**parameters, "wait": f"{max(1, round(wait_seconds * 1000))}ms"}
        with self._request(path, parameters, self._read_seconds + wait_seconds) as answer:
            try:
                body = answer.json()
            except requests.exceptions.JSONDecodeError as error:
                raise Failed(
                    f"{self.address} did not answer with JSON; is it a trueup control plane?"
                ) from error
            except requests.RequestException as error:
                raise _unreachable(self.address, error) from error
            return Answer(body=body, index=_index(answer))

    def _chunks(self, answer: requests.Response) -> Iterator[bytes]:
        try:
            yield from answer.iter_content(chunk_size=None)
        except (requests.RequestException, OSError) as error:
            raise Unreachable(f"the control plane at {self.address} broke off its answer") from error

    @contextmanager
    def _request(
        self,
        path: str,
        parameters: Mapping[str, object],
        read_seconds: float | None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[requests.Response]:
        given = {key: _text(value) for key, value in parameters.items() if value not in (None, "", False)}
        try:
            answer = self._session.get(
                self.address + path,
                params=given,
                headers=dict(headers or {}),
                timeout=(CONNECT_SECONDS, read_seconds),
                stream=True,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            raise _unreachable(self.address, error) from error
        except (OSError, ValueError) as error:
            raise Failed(f"cannot ask {self.address}: {error}") from error
        with answer:
            if answer.status_code != requests.codes.ok:
                raise _refusal(self.address, answer)
            yield answer


class _Bearer(AuthBase):
    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def path_of(*parts: str) -> str:
    """A request's path of *parts*, each quoted whole: `/jobs/web/versions`."""
    return "".join("/" + quote(part, safe="") for part in parts)


def _address(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise Failed(
            f"--address {text!r} is no address; write it like http://127.0.0.1:7430", exit_code=USAGE
        )
    if parts.username is not None or parts.password is not None:
        raise Failed("a password does not belong into --address; use --token-file", exit_code=USAGE)
    try:
        _ = parts.port
    except ValueError as error:
        raise Failed(f"--address {text!r}: {error}", exit_code=USAGE) from error
    return text.rstrip("/")


def _existing(path: Path | None, option: str) -> str | None:
    if path is None:
        return None
    try:
        with path.open("rb"):
            return str(path)
    except OSError as error:
        raise Failed(f"{option} {path} cannot be read: {error.strerror}") from error


def _items(url: str, body: object) -> "list[Any]":
    if not isinstance(body, Mapping) or not isinstance(body.get("items"), list) or "next" not in body:
        raise Failed(f"{url} did not answer with a list; is it a trueup control plane?")
    return [*body["items"]]


def _text(value: object) -> str:
    return "true" if value is True else str(value)


def _index(answer: requests.Response) -> int:
    text = answer.headers.get("X-Index", "")
    return int(text) if text.isdigit() else 0


def _unreachable(address: str, error: requests.RequestException) -> Failed:
    if isinstance(error, requests.exceptions.SSLError):
        return Failed(
            f"the TLS connection to {address} failed: {_cause(error)}; name the certificate to trust with --tls-ca"
        )
    if isinstance(error, requests.exceptions.ReadTimeout):
        return Unreachable(f"the control plane at {address} did not answer in time")
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return Unreachable(
            f"the control plane at {address} cannot be reached: no answer; is --address right?"
        )
    if isinstance(error, (requests.exceptions.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        return Unreachable(
            f"cannot reach the control plane at {address}: {_cause(error)}; "
            "start it with `trueup up`, or say where it is with --address"
        )
    return Failed(f"cannot ask {address}: {_cause(error)}")


def _cause(error: BaseException) -> str:
    """The innermost cause in few words: requests wraps urllib3 wraps the system's own error."""
    seen: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in seen:
        seen.append(current)
        held = [getattr(current, "reason", None), *current.args, current.__cause__, current.__context__]
        current = next((one for one in held if isinstance(one, BaseException) and one not in seen), None)
    for one in reversed(seen):
        if isinstance(one, OSError) and one.strerror:
            return one.strerror
    return str(seen[-1]) or type(seen[-1]).__name__


def _refusal(address: str, answer: requests.Response) -> Failed:
    detail = _detail(answer)
    match answer.status_code:
        case 401 | 403:
            return Failed(f"{address} wants a token{_after(detail)}; give the read token with --token-file")
        case 404:
            return NotFound(
                detail or f"{address} has no {urlsplit(answer.url).path}; is it a trueup control plane?"
            )
        case 410:
            return Gone(detail or "that part of the history is gone")
        case 503 | 429:
            return Busy(f"the control plane at {address} is busy{_after(detail)}")
        case 301 | 302 | 307 | 308:
            return Failed(f"{address} points to {answer.headers.get('Location', '?')}; use that as --address")
    if answer.status_code >= 500:
        return Unreachable(f"the control plane at {address} failed ({answer.status_code}){_after(detail)}")
    return Failed(f"{address} refused the request ({answer.status_code}){_after(detail)}")


def _after(detail: str) -> str:
    return f": {detail}" if detail else ""


def _detail(answer: requests.Response) -> str:
    """What a problem document says, at most 2000 characters; nothing for anything else."""
    if "json" not in answer.headers.get("Content-Type", ""):
        return ""
    try:
        body = answer.json()
    except (requests.RequestException, ValueError):
        return ""
    return str(body.get("detail") or body.get("title") or "")[:2000] if isinstance(body, Mapping) else ""
