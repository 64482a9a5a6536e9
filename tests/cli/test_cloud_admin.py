"""``duetto cloud admin-token`` and ``--admin``: tokens are told once; what the command line does, to the audit log."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from duetto.cloud.site import Site


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DUETTO_DB", "DUETTO_BLOBS", "DUETTO_CLOUD"):
        monkeypatch.delenv(name, raising=False)


def test_a_token_is_printed_and_taken_back(run: Callable[..., Any], tmp_path: Path) -> None:
    done = run("cloud", "admin-token", "anna", "--role", "operator", "--days", "2", "--state", "here")
    assert done.code == 0
    site = Site(tmp_path / "here")
    found = site.operators.known(done.out.strip())
    assert found is not None
    assert (found.name, found.role, round(found.expires - found.issued)) == ("anna", "operator", 2 * 86400)
    assert run("cloud", "admin-token", "anna", "--revoke", "--state", "here").code == 0
    assert site.operators.known(done.out.strip()) is None
    again = run("cloud", "admin-token", "anna", "--revoke", "--state", "here")
    assert (again.code, again.error) == (2, "error: no token of anna to take back: see the list of operators")
    assert [line.action for line in site.audit.newest()] == [
        "refused",
        "revoke operator",
        "revoke operator",
        "admin token",
    ]
    site.engine.dispose()


def test_a_viewer_is_what_one_is_by_default(run: Callable[..., Any]) -> None:
    told = json.loads(run("cloud", "admin-token", "prometheus", "--state", "here", "--json").out)
    assert told["role"] == "viewer"
    done = run("cloud", "admin-token", "anna", "--role", "admin", "--state", "here")
    assert (done.code, done.error) == (2, "error: no role 'admin': one of viewer, operator")


def test_what_the_command_line_does_is_told(run: Callable[..., Any], tmp_path: Path) -> None:
    assert run("cloud", "enroll", "phone-1", "--state", "here").code == 0
    assert run("cloud", "revoke", "phone-1", "--state", "here").code == 2
    (tmp_path / "no.onnx").write_bytes(b"none")
    site = Site(tmp_path / "here")
    lines = site.audit.newest()
    assert [(line.action, line.about.get("device")) for line in lines] == [
        ("refused", None),
        ("revoke", "phone-1"),
        ("enroll", "phone-1"),
    ]
    assert all(line.who.endswith("(command line)") for line in lines)
    site.engine.dispose()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--admin", "nowhere"), "the address 'nowhere': use HOST:PORT, such as 127.0.0.1:8080"),
        (("--program", "closed-loop", "--admin", "8080"), "--admin beside a --program: it administers a cloud"),
    ],
)
def test_an_administration_that_cannot_be_is_one_line(
    run: Callable[..., Any], words: tuple[str, ...], error: str
) -> None:
    done = run("cloud", *words, *(() if "--program" in words else ("--large", "digits.large")), "--state", "here")
    assert done.code == 2
    assert done.error.startswith(f"error: {error}")
