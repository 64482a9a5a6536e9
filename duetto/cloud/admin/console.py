"""The console: the administration in a browser, behind a login with the same tokens.

A browser keeps the token in a cookie that no script reads (``HttpOnly``), no other page's request brings
(``SameSite=Strict``, and what changes something must come from this origin), and that ends with the browser's session.
So whichever process answers knows who asks, and a token that is taken back is out everywhere at once.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ConfigDict, Field

from duetto.cloud.admin.access import COOKIE, Cloud, Viewing, known
from duetto.cloud.operators import Operator
from duetto.cloud.web import own

FILES = Path(__file__).parents[1] / "console"
"""What `make page` builds."""
_UNBUILT = (
    "<!doctype html><title>Duetto</title><p>The console is not built here: <code>make page</code> (it needs npm)."
)


class Login(BaseModel):
    """A token of ``duetto cloud admin-token``."""

    model_config = ConfigDict(extra="forbid")
    token: Annotated[str, Field(max_length=200)]


def mounted(app: FastAPI, tls: bool, files: Path = FILES) -> None:
    """Add the console to an application.

    Args:
        app: with ``state.administered``.
        tls: whether it is served over TLS.
        files: what was built.
    """

    @app.post("/login", include_in_schema=False)
    def login(request: Request, cloud: Cloud, body: Login) -> Response:
        own(request.headers.get("origin"), request.headers.get("host"))
        who = known(request, cloud, body.token)
        done = JSONResponse(asdict(who))
        done.set_cookie(COOKIE, body.token, httponly=True, samesite="strict", secure=tls)
        return done

    @app.post("/logout", include_in_schema=False, status_code=204)
    def logout(request: Request) -> Response:
        own(request.headers.get("origin"), request.headers.get("host"))
        done = Response(status_code=204)
        done.delete_cookie(COOKIE, httponly=True, samesite="strict", secure=tls)
        return done

    @app.get("/me", include_in_schema=False)
    def me(who: Viewing) -> Operator:
        return who

    if (files / "index.html").is_file():
        app.mount("/", StaticFiles(directory=files, html=True))
    else:
        app.add_api_route("/", lambda: HTMLResponse(_UNBUILT), include_in_schema=False)
