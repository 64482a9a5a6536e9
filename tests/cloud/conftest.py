"""Databases and an S3 to test with, all real: SQLite in a file, a PostgreSQL cluster of our own, moto's server."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import sqlalchemy as sql

from duetto.cloud.database import opened, upgraded
from duetto.cloud.site import Site


def _without(what: str, remedy: str) -> None:
    """Skip, saying so; where these servers must be there (``DUETTO_CI_SERVERS=1``), fail."""
    if os.environ.get("DUETTO_CI_SERVERS") == "1":
        pytest.fail(f"DUETTO_CI_SERVERS=1 and {what}: {remedy}")
    pytest.skip(f"{what} ({remedy}): its tests are skipped")


def _server() -> Path | None:
    """The folder of PostgreSQL's programs; distributions leave initdb out of PATH."""
    if found := shutil.which("postgres"):
        return Path(found).resolve().parent
    return next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)


def _nobody() -> str | None:
    """Whom the server runs as: it refuses root."""
    if os.name == "nt" or os.getuid() != 0:
        return None
    import pwd

    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    return _without("PostgreSQL refuses root, and there is no user postgres or nobody", "add one")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A new one, over SQLite."""
    for name in ("DUETTO_DB", "DUETTO_BLOBS"):
        monkeypatch.delenv(name, raising=False)
    made = Site(tmp_path / "cloud").begin()
    yield made
    made.engine.dispose()


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """A server for this worker, reached by a socket in its own folder; ends with ``?host=...``, the name in between."""
    programs = _server()
    if programs is None or not (programs / "initdb").is_file():
        _without("no PostgreSQL here", "apt install postgresql")
    assert programs is not None
    user = _nobody()
    folder = Path(tempfile.mkdtemp(prefix="duetto-pg-"))  # short: the path of a socket has a limit
    if user is not None:
        shutil.chown(folder, user)
    how = {"user": user, "cwd": folder, "env": {"PATH": os.environ["PATH"], "HOME": str(folder), "LC_ALL": "C"}}
    make = [programs / "initdb", "-D", folder / "data", "-U", "duetto", "-A", "trust", "-E", "UTF8", "--no-sync"]
    made = subprocess.run(make, capture_output=True, text=True, check=False, **how)  # type: ignore[call-overload]
    assert made.returncode == 0, made.stderr
    settings = {"listen_addresses": "", "unix_socket_directories": folder, "fsync": "off", "shared_buffers": "16MB"}
    flags = [flag for name, value in settings.items() for flag in ("-c", f"{name}={value}")]
    log = (folder / "log").open("wb")
    server = subprocess.Popen([programs / "postgres", "-D", folder / "data", *flags], stdout=log, stderr=log, **how)  # type: ignore[call-overload]
    try:
        url = f"postgresql://duetto@/{{}}?host={folder}"
        engine = opened(url.format("postgres"))
        for _ in range(300):
            assert server.poll() is None, (folder / "log").read_text()
            with contextlib.suppress(sql.exc.OperationalError), engine.connect():
                break
            time.sleep(0.1)
        engine.dispose()
        yield url
    finally:
        server.terminate()
        server.wait(30)
        log.close()
        shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of an empty database of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/cloud.db"
        return
    cluster = request.getfixturevalue("cluster")
    name = f"test_{uuid4().hex}"
    keeper = opened(cluster.format("postgres")).execution_options(isolation_level="AUTOCOMMIT")
    with keeper.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    yield cluster.format(name)
    with keeper.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    keeper.dispose()


@pytest.fixture
def engine(url: str) -> Iterator[sql.Engine]:
    """A database of each kind with the newest tables."""
    engine = upgraded(opened(url))
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """The address of an S3 in a process of its own."""
    try:
        import moto.server  # noqa: F401
        import s3fs  # noqa: F401
    except ImportError:
        _without("no moto[server] or s3fs here", "pip install 'duetto[s3,dev]'")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    start = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(start, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            assert server.poll() is None, "moto's server has ended"
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture
def bucket(moto: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty bucket."""
    import s3fs

    for name, value in {
        "AWS_ENDPOINT_URL": moto,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    name = f"test-{uuid4().hex}"
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem(endpoint_url=moto).mkdir(name)
    return f"s3://{name}"
