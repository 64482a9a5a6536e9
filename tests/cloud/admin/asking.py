"""Asking the administration, without a server."""

import asyncio
from typing import Any

import httpx


def asked(app: Any, method: str, path: str, token: str | None = None, **given: Any) -> httpx.Response:
    """What the application answers, without a server."""

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://cloud", headers=headers) as client:
            return await client.request(method, path, **given)

    return asyncio.run(ask())


class Asking:
    """A client with a token."""

    def __init__(self, app: Any, token: str | None) -> None:
        self._app, self._token = app, token

    def get(self, path: str, status: int = 200) -> Any:
        return self._told(asked(self._app, "GET", path, self._token), status)

    def post(self, path: str, status: int = 200, **body: Any) -> Any:
        return self._told(asked(self._app, "POST", f"/api/v1{path}", self._token, json=body), status)

    @staticmethod
    def _told(answer: Any, status: int) -> Any:
        assert answer.status_code == status, answer.text
        if status >= 400:
            assert set(answer.json()) == {"fault", "remedy"}
            assert "\n" not in answer.text
        return answer.json() if answer.headers["content-type"] == "application/json" else answer.text
