"""Asking an engine that is served elsewhere, over HTTP: in a time, up to a size, again only where that is safe.

What an engine has not begun (no connection, 429, 503) is asked again whatever it is; what it may have begun (no answer
in time, a cut connection, 500, 502, 504) only where the same question twice does no harm. Waits between tries have
full jitter, and are as long as ``Retry-After`` says. Redirections are not followed: a key would go with them.
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from duetto.cloud.batcher import Overloaded
from duetto.errors import ConfigError, DataError, Error
from duetto.transport.backoff import back_off
from duetto.types import Key

LIMIT = 1 << 26  # bytes; the largest answer that is read
_BEGUN = frozenset({500, 502, 504})
_BUSY = frozenset({429, 503})
_BASE, _MOST = 0.1, 5.0  # seconds of the back-off
_FIRST = threading.Lock()  # of several threads that ask first, one makes the client


class Unreached(Error):
    """The engine gave no answer: it is down, too slow, or broke off."""


@dataclass(frozen=True)
class Said:
    """An answer: its status, its headers by lower-case name, its body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self, where: str) -> Any:
        """The body as JSON.

        Raises:
            DataError: it is none.
        """
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as fault:
            raise DataError(f"{where} answered with what is no JSON", "check what is served there") from fault


def asked(
    method: str,
    url: str,
    content: bytes = b"",
    headers: Mapping[str, str] | None = None,
    *,
    key: Key,
    seconds: float,
    repeatable: bool,
    tries: int = 3,
    variable: str = "",
    limit: int = LIMIT,
) -> Said:
    """Ask once, or again where that is safe; any answer with a status below 300.

    Args:
        method: of HTTP.
        url: of the question.
        content: its body.
        headers: further ones.
        key: of the waits between tries.
        seconds: for everything, waits too.
        repeatable: whether the same question twice does no harm.
        tries: the most tries.
        variable: the name of the environment variable that holds the engine's key; empty sends none.
        limit: the most bytes of an answer.

    Raises:
        ConfigError: httpx is not installed, the variable is not set, or the engine refuses the key or the address.
        DataError: the engine refuses the question, or its answer is too large.
        Overloaded: it is busy for longer than there is time.
        Unreached: it cannot be reached, is too slow, or broke off.
    """
    end = time.monotonic() + seconds
    secret = _secret(variable)
    sent = {**(headers or {}), **({"Authorization": f"Bearer {secret}"} if secret else {})}
    for attempt in range(tries):
        wait, again = 0.0, True
        fault: Error
        try:
            said = _once(method, url, content, sent, end, seconds, limit)
        except Unreached as unreached:
            # Raised from None where nothing was sent; the cause else is what broke it off.
            fault, again = unreached, repeatable or unreached.__cause__ is None
        else:
            if said.status < 300:
                return said
            if said.status in _BUSY:
                wait = _retry_after(said.headers.get("retry-after", ""))
                fault = Overloaded(f"{_place(url)} is busy ({said.status})", wait or _BASE)
            elif said.status in _BEGUN:
                fault, again = Unreached(f"{_place(url)} failed ({said.status})", "its log says why"), repeatable
            else:
                raise _refused(said, url, variable, secret)
        wait = max(wait, back_off(attempt, key, _BASE, _MOST))
        if not again or attempt + 1 == tries or time.monotonic() + wait >= end:
            raise fault
        time.sleep(wait)
    raise AssertionError("the last try returns or raises")


def address(url: str) -> str:
    """A base address without the slash at its end.

    Raises:
        ConfigError: no address of http or https, or one that holds a password, a query or a fragment.
    """
    try:
        parts = urlsplit(url)
        well = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        parts, well = urlsplit(""), False
    if "@" in url:  # not shown: it may be a password
        raise ConfigError("an address that holds a name or a password", "name a variable that holds the key instead")
    if not well or parts.query or parts.fragment or url != url.strip():
        raise ConfigError(f"no engine at {url!r}", "use an address such as http://127.0.0.1:8000")
    return url.rstrip("/")


def _once(
    method: str, url: str, content: bytes, headers: Mapping[str, str], end: float, seconds: float, limit: int
) -> Said:
    httpx, client = _client()
    left = max(1e-3, end - time.monotonic())
    late = Unreached(f"{_place(url)} has not answered in {seconds:.3g} s", "give it more time, or look at its load")
    try:
        with client.stream(method, url, content=content, headers=headers, timeout=left) as response:
            parts, size = [], 0
            for part in response.iter_bytes():
                parts.append(part)
                size += len(part)
                if size > limit:
                    raise DataError(f"{_place(url)} answered with more than {limit} bytes", "ask for less")
                if time.monotonic() > end:  # one that drips never runs into the time-out of a single read
                    raise late from TimeoutError()
            named = {name.lower(): value for name, value in response.headers.items()}
            return Said(response.status_code, named, b"".join(parts))
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as fault:
        raise Unreached(f"{_place(url)} cannot be reached ({type(fault).__name__})", "is it running?") from None
    except httpx.TimeoutException as fault:
        raise late from fault
    except (httpx.HTTPError, httpx.StreamError) as fault:
        raise Unreached(f"{_place(url)} broke off ({type(fault).__name__})", "its log says why") from fault


def _client() -> tuple[Any, Any]:
    """The library, and the one client of this process, whose connections are kept and shared by its threads."""
    with _FIRST:
        return _made()


@lru_cache(maxsize=1)
def _made() -> tuple[Any, Any]:
    try:
        import httpx
    except ImportError as error:
        raise ConfigError("httpx is not installed", "pip install 'duetto[cloud]'") from error
    return httpx, httpx.Client(follow_redirects=False)


def _secret(variable: str) -> str:
    if not variable:
        return ""
    secret = os.environ.get(variable, "").strip()
    if not secret:
        raise ConfigError(f"the environment variable {variable} is not set", "set it to the engine's key")
    if not secret.isascii() or not secret.isprintable():
        raise ConfigError(f"the environment variable {variable} holds no key", "a key is one word of ASCII")
    return secret


def _place(url: str) -> str:
    return urlsplit(url).netloc


def _retry_after(text: str) -> float:
    """Seconds; 0 where there are none, or a date that is none or over."""
    try:
        seconds = float(text)
    except ValueError:
        try:
            then = parsedate_to_datetime(text)
        except ValueError:
            return 0.0
        then = then if then.tzinfo else then.replace(tzinfo=UTC)
        seconds = (then - datetime.now(UTC)).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0


def _refused(said: Said, url: str, variable: str, secret: str) -> Error:
    """What a status means that no other try would change."""
    place = _place(url)
    if said.status in (401, 403):
        how = f"the key in {variable}" if variable else "questions without a key"
        return ConfigError(f"{place} refuses {how} ({said.status})", "set a variable that holds a valid key")
    if said.status == 404:
        return ConfigError(f"there is nothing at {url}", "check the address, the model and its version")
    if said.status < 400:
        return ConfigError(f"{place} redirects ({said.status})", "use the address that it redirects to")
    text = said.body[:500].decode("utf-8", "replace")
    text = " ".join((text.replace(secret, "***") if secret else text).split())[:200]
    return DataError(f"{place} refuses the question ({said.status})", text)
