"""The audit log grows by one line at a time, whoever writes; any change to what is there shows."""

import hashlib
import json
import subprocess
import sys

import pytest
import sqlalchemy as sql

from duetto.cloud.audit import Audit, lines
from duetto.cloud.database import writing
from duetto.errors import ConfigError, DataError


def test_each_line_holds_the_hash_of_all_before_it(engine: sql.Engine) -> None:
    times = iter([1.5, 2.25])
    audit = Audit(engine, clock=lambda: next(times))
    first = audit.add("anna", "revoke", {"device": "phone-1", "why": "stolen"})
    second = audit.add("bert", "enroll", {})

    def hashed(*said: object) -> str:
        return hashlib.sha256(json.dumps(said, separators=(",", ":")).encode()).hexdigest()

    about = '{"device": "phone-1", "why": "stolen"}'
    assert first.hash == hashed(1, "1.5", "anna", "revoke", about, "0" * 64)
    assert second.hash == hashed(2, "2.25", "bert", "enroll", "{}", first.hash)
    assert audit.newest() == [second, first]
    assert audit.newest(1) == [second]
    assert audit.newest(before=2) == [first]
    found = audit.check(first.hash)
    assert (found.lines, found.head, found.broken, found.known) == (2, second.hash, None, True)


def test_an_empty_log_is_well(engine: sql.Engine) -> None:
    found = Audit(engine).check()
    assert (found.lines, found.broken, found.known) == (0, None, None)
    assert Audit(engine).newest() == []


@pytest.mark.parametrize(
    ("harm", "first"),
    [
        (lines.update().where(lines.c.number == 2).values(who="bert"), 2),
        (lines.update().where(lines.c.number == 2).values(about='{"n":1}'), 2),
        (lines.update().where(lines.c.number == 3).values(unix_seconds=0.0), 3),
        (lines.delete().where(lines.c.number == 1), 1),
        (lines.delete().where(lines.c.number == 4), 4),
    ],
)
def test_what_was_changed_or_taken_out_shows(engine: sql.Engine, harm: sql.Executable, first: int) -> None:
    audit = Audit(engine)
    for n in range(6):
        audit.add("anna", "act", {"n": n})
    with writing(engine) as connection:
        connection.execute(harm)
    assert audit.check().broken == first


def test_what_was_cut_off_shows_to_who_has_kept_the_newest_hash(engine: sql.Engine) -> None:
    audit = Audit(engine)
    for n in range(3):
        head = audit.add("anna", "act", {"n": n}).hash
    with writing(engine) as connection:
        connection.execute(lines.delete().where(lines.c.number == 3))
    found = audit.check(head)
    assert (found.broken, found.known) == (None, False)


def test_what_is_refused_is_told_twice(engine: sql.Engine) -> None:
    audit = Audit(engine)
    with audit.doing("anna", "promote", {"version": 2}):
        pass
    with pytest.raises(ConfigError), audit.doing("anna", "promote", {"version": 3}):
        raise ConfigError("no", "ask again")
    told = [(line.action, line.about) for line in audit.newest()]
    assert told == [
        ("refused", {"line": 2, "action": "promote", "fault": "no"}),
        ("promote", {"version": 3}),
        ("promote", {"version": 2}),
    ]


@pytest.mark.parametrize("line", [("", "act", {}), ("anna", " ", {}), ("anna", "act", {"x": float("nan")})])
def test_a_line_of_nobody_or_of_nothing_is_refused(
    engine: sql.Engine, line: tuple[str, str, dict[str, object]]
) -> None:
    with pytest.raises(DataError):
        Audit(engine).add(*line)
    assert Audit(engine).check().lines == 0


WRITES = """
import sys
from duetto.cloud.audit import Audit
from duetto.cloud.database import opened
audit = Audit(opened(sys.argv[1]))
for n in range(20):
    audit.add(sys.argv[2], "act", {"n": n})
"""


def test_processes_write_one_chain(engine: sql.Engine, url: str) -> None:
    words = [sys.executable, "-c", WRITES, url]
    for process in [subprocess.Popen([*words, name]) for name in ("anna", "bert")]:
        assert process.wait(60) == 0
    found = Audit(engine).check()
    assert (found.lines, found.broken) == (40, None)
