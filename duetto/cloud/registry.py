"""The models that there are: versions that never change, where they come from, how good they are, and who gets which.

A version of a model is a number, from 1, with artefacts by hash (:mod:`duetto.cloud.blobs`), its parents, and what it
was trained from. What is measured of it is added later, and nothing is taken back. A *channel* points to one version of
each model: ``canary`` for a few devices, ``stable`` for all. The pointer is the last line of its history, which tells
who moved it, when, from where and why. Every step is one transaction, whichever process does it.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sql

from duetto.cloud.blobs import Blobs
from duetto.cloud.database import Number, ignoring, metadata, reading, writing
from duetto.errors import ConfigError, DataError

CHANNELS = ("canary", "stable")
ROUNDS = "rounds"  # a metric of the version that rounds began from: those that have ended, and how many there are to be
_WORD = re.compile(r"[a-z0-9][a-z0-9_.-]{0,99}")

model = sql.Table("model", metadata, sql.Column("name", sql.String, primary_key=True))
version = sql.Table(
    "model_version",
    metadata,
    sql.Column("model", sql.String, sql.ForeignKey("model.name"), primary_key=True),
    sql.Column("version", sql.Integer, primary_key=True, autoincrement=False),
    sql.Column("trained_from", sql.JSON, nullable=False),
    sql.Column("by", sql.String, nullable=False),
    sql.Column("unix_seconds", sql.Double, nullable=False),
)
artefact = sql.Table(
    "model_artefact",
    metadata,
    sql.Column("model", sql.String, primary_key=True),
    sql.Column("version", sql.Integer, primary_key=True, autoincrement=False),
    sql.Column("kind", sql.String, primary_key=True),
    sql.Column("digest", sql.String(64), nullable=False),
    sql.Column("bytes", sql.BigInteger, nullable=False),
    sql.ForeignKeyConstraint(["model", "version"], ["model_version.model", "model_version.version"]),
)
parent = sql.Table(
    "model_parent",
    metadata,
    sql.Column("model", sql.String, primary_key=True),
    sql.Column("version", sql.Integer, primary_key=True, autoincrement=False),
    sql.Column("parent_model", sql.String, primary_key=True),
    sql.Column("parent_version", sql.Integer, primary_key=True, autoincrement=False),
    sql.ForeignKeyConstraint(["model", "version"], ["model_version.model", "model_version.version"]),
    sql.ForeignKeyConstraint(["parent_model", "parent_version"], ["model_version.model", "model_version.version"]),
)
metric = sql.Table(
    "model_metric",
    metadata,
    sql.Column("number", Number, primary_key=True),
    sql.Column("model", sql.String, nullable=False),
    sql.Column("version", sql.Integer, nullable=False),
    sql.Column("metrics", sql.JSON, nullable=False),
    sql.Column("by", sql.String, nullable=False),
    sql.Column("unix_seconds", sql.Double, nullable=False),
    sql.ForeignKeyConstraint(["model", "version"], ["model_version.model", "model_version.version"]),
    sql.Index(None, "model", "version"),
    sqlite_autoincrement=True,
)
move = sql.Table(
    "model_move",
    metadata,
    sql.Column("number", Number, primary_key=True),
    sql.Column("model", sql.String, nullable=False),
    sql.Column("channel", sql.String, nullable=False),
    sql.Column("version", sql.Integer, nullable=False),
    sql.Column("before", sql.Integer),
    sql.Column("back", sql.Boolean, nullable=False),
    sql.Column("by", sql.String, nullable=False),
    sql.Column("why", sql.String, nullable=False),
    sql.Column("unix_seconds", sql.Double, nullable=False),
    sql.ForeignKeyConstraint(["model", "version"], ["model_version.model", "model_version.version"]),
    sql.Index(None, "model", "channel", "number"),
    sqlite_autoincrement=True,
)
pause = sql.Table(
    "model_pause",
    metadata,
    sql.Column("number", Number, primary_key=True),
    sql.Column("model", sql.String, sql.ForeignKey("model.name"), nullable=False),
    sql.Column("channel", sql.String, nullable=False),
    sql.Column("paused", sql.Boolean, nullable=False),
    sql.Column("by", sql.String, nullable=False),
    sql.Column("why", sql.String, nullable=False),
    sql.Column("unix_seconds", sql.Double, nullable=False),
    sql.Index(None, "model", "channel", "number"),
    sqlite_autoincrement=True,
)


@dataclass(frozen=True)
class Artefact:
    """A file of a version.

    Attributes:
        digest: the SHA-256 that names its blob.
        bytes: of it.
    """

    digest: str
    bytes: int


@dataclass(frozen=True)
class Version:
    """One version of a model; it never changes.

    Attributes:
        model, number: its name.
        artefacts: by kind, such as safetensors, onnx or policy.
        parents: the versions that it was made from, ``(model, number)``.
        trained_from: what it learned from, as whoever trained it says.
        by: who added it.
        unix_seconds: when.
    """

    model: str
    number: int
    artefacts: Mapping[str, Artefact]
    parents: tuple[tuple[str, int], ...]
    trained_from: Mapping[str, Any]
    by: str
    unix_seconds: float


@dataclass(frozen=True)
class Move:
    """One step of a channel.

    Attributes:
        number: grows from move to move, over all models and channels, also where a channel goes back: what is released
            to devices can be numbered by it.
        model, channel: whose.
        version, before: to, and from; None where it pointed nowhere.
        back: whether it was rolled back.
        by, why: who did it, for what reason.
        unix_seconds: when.
    """

    number: int
    model: str
    channel: str
    version: int
    before: int | None
    back: bool
    by: str
    why: str
    unix_seconds: float


@dataclass(frozen=True)
class Pause:
    """One time that a channel was stopped, or let go on.

    Attributes:
        number: grows from one to the next, over all models and channels.
        model, channel: whose.
        paused: stopped; else it goes on.
        by, why: who did it, for what reason.
        unix_seconds: when.
    """

    number: int
    model: str
    channel: str
    paused: bool
    by: str
    why: str
    unix_seconds: float


@dataclass(frozen=True)
class Registry:
    """The models, in the tables ``model`` and ``model_...``; processes may share them.

    Attributes:
        engine: of a database that is :func:`~duetto.cloud.database.upgraded`.
        blobs: where the artefacts are.
    """

    engine: sql.Engine
    blobs: Blobs

    def add(
        self,
        model_name: str,
        artefacts: Mapping[str, str],
        *,
        by: str,
        parents: Sequence[tuple[str, int]] = (),
        trained_from: Mapping[str, Any] | None = None,
        expected: int | None = None,
    ) -> Version:
        """Add the next version of a model, which may be its first.

        Args:
            model_name: a word.
            artefacts: the digests of its blobs, by kind.
            by: who adds it.
            parents: the versions that it was made from.
            trained_from: what it learned from; anything that JSON can say.
            expected: the newest version as far as the caller knows, 0 for none; None does not ask. Of two who learned
                from the same only one is heard.

        Raises:
            ConfigError: a name or kind that is no word, no artefact, nobody who adds it; or another has come meanwhile.
            DataError: an artefact or a parent that is not there, numbers that are not finite.
        """
        for word in (model_name, *artefacts):
            if not _WORD.fullmatch(word):
                raise ConfigError(f"the name {word!r}", "use small letters, digits, _ . and -")
        if not artefacts:
            raise ConfigError(f"a version of {model_name} without artefacts", "name at least one blob")
        _said(by=by)
        told = _plain(trained_from or {}, f"what {model_name} was trained from")
        files = {kind: Artefact(digest, self.blobs.size(digest)) for kind, digest in sorted(artefacts.items())}
        now = time.time()
        with writing(self.engine) as connection:
            connection.execute(ignoring(connection, model), {"name": model_name})
            _locked(connection, model_name)
            newest = sql.select(sql.func.max(version.c.version)).where(version.c.model == model_name)
            number = (connection.scalar(newest) or 0) + 1
            if expected is not None and number != expected + 1:
                raise ConfigError(
                    f"{model_name} has version {number - 1}, not {expected}", "look at it, and learn anew"
                )
            found = sorted({(str(name), int(n)) for name, n in parents})
            for name, n in found:
                _existing(connection, name, n)
            mine = {"model": model_name, "version": number}
            connection.execute(version.insert(), {**mine, "trained_from": told, "by": by, "unix_seconds": now})
            rows = [{**mine, "kind": kind, **vars(each)} for kind, each in files.items()]
            connection.execute(artefact.insert(), rows)
            if found:
                connection.execute(
                    parent.insert(), [{**mine, "parent_model": name, "parent_version": n} for name, n in found]
                )
        return Version(model_name, number, files, tuple(found), told, by, now)

    def moves(self) -> int:
        """Grows when any channel moves, is paused or goes on."""
        newest = [sql.select(sql.func.max(table.c.number)) for table in (move, pause)]
        with reading(self.engine) as connection:
            return sum(connection.scalar(each) or 0 for each in newest)

    def models(self) -> list[str]:
        """Their names."""
        with reading(self.engine) as connection:
            return list(connection.scalars(sql.select(model.c.name).order_by(model.c.name)))

    def version(self, model_name: str, number: int) -> Version:
        """One version.

        Raises:
            DataError: there is none.
        """
        with reading(self.engine) as connection:
            return _read(connection, model_name, number)

    def versions(self, model_name: str) -> list[Version]:
        """All of a model, the first one first; none of a model that is not there."""
        with reading(self.engine) as connection:
            of = sql.select(version.c.version).where(version.c.model == model_name).order_by(version.c.version)
            return [_read(connection, model_name, number) for number in connection.scalars(of).all()]

    def measure(self, model_name: str, number: int, metrics: Mapping[str, Any], *, by: str) -> None:
        """Add what was measured of a version, such as ``{"accuracy": {"mean": 0.9, "by_user": {"0.1": 0.7}}}``.

        Nothing is replaced: what was measured before stays in the table, and :meth:`metrics` tells the newest.

        Raises:
            ConfigError: nobody who measured it.
            DataError: there is no such version, or numbers that are not finite.
        """
        _said(by=by)
        told = _plain(metrics, f"metrics of {model_name} {number}")
        with writing(self.engine) as connection:
            _existing(connection, model_name, number)
            row = {"model": model_name, "version": number, "metrics": told, "by": by, "unix_seconds": time.time()}
            connection.execute(metric.insert(), row)

    def metrics(self, model_name: str, number: int) -> dict[str, Any]:
        """What was measured of a version, the newest of each name."""
        mine = sql.and_(metric.c.model == model_name, metric.c.version == number)
        found: dict[str, Any] = {}
        with reading(self.engine) as connection:
            for each in connection.scalars(sql.select(metric.c.metrics).where(mine).order_by(metric.c.number)):
                found |= each
        return found

    def channel(self, model_name: str, channel: str) -> Version | None:
        """The version that a channel points to; None where it points nowhere yet.

        Raises:
            ConfigError: no such channel.
        """
        _known(channel)
        with reading(self.engine) as connection:
            moves = _moves(connection, model_name, channel)
            return _read(connection, model_name, moves[-1].version) if moves else None

    def promote(
        self, model_name: str, number: int, channel: str, *, by: str, why: str, expected: int | None = None
    ) -> Move:
        """Point a channel to a version.

        Args:
            model_name, number: the version.
            channel: ``canary`` or ``stable``.
            by, why: who does it, for what reason.
            expected: the version that the channel points to as far as the caller knows, 0 for nowhere; None does not
                ask. Whoever decides by a rule states it, so that of two who decide at once only one is heard.

        Raises:
            ConfigError: no such channel, nobody or no reason, the channel is paused, points there already, or not where
                expected.
            DataError: there is no such version.
        """
        _known(channel)
        _said(by=by, why=why)
        with writing(self.engine) as connection:
            _locked(connection, model_name)
            _existing(connection, model_name, number)
            held = _held(connection, model_name, channel)
            if held is not None:
                raise ConfigError(f"{channel} of {model_name} is paused ({held.why})", "let it go on before")
            moves = _moves(connection, model_name, channel)
            before = moves[-1].version if moves else None
            _agreed(model_name, channel, before, expected)
            if before == number:
                raise ConfigError(f"{channel} of {model_name} is at version {number} already", "nothing is to be done")
            return _moved(connection, model_name, channel, number, before, False, by, why)

    def roll_back(self, model_name: str, channel: str, *, by: str, why: str, expected: int | None = None) -> Move:
        """Point a channel to where it pointed before its last promotion; again, to before the one before that.

        Args:
            model_name, channel: whose.
            by, why, expected: as for :meth:`promote`.

        Raises:
            ConfigError: no such channel, nobody or no reason, nothing to go back to, or it points not where expected.
        """
        _known(channel)
        _said(by=by, why=why)
        with writing(self.engine) as connection:
            _locked(connection, model_name)
            standing: list[int] = []  # promotions that were not rolled back
            for each in _moves(connection, model_name, channel):
                if each.back:
                    standing.pop()
                else:
                    standing.append(each.version)
            _agreed(model_name, channel, standing[-1] if standing else None, expected)
            if len(standing) < 2:
                at = f"at version {standing[0]}, its first" if standing else "nowhere"
                raise ConfigError(f"{channel} of {model_name} is {at}", "promote another version")
            return _moved(connection, model_name, channel, standing[-2], standing[-1], True, by, why)

    def history(self, model_name: str, channel: str) -> list[Move]:
        """All moves of a channel, the first one first.

        Raises:
            ConfigError: no such channel.
        """
        _known(channel)
        with reading(self.engine) as connection:
            return _moves(connection, model_name, channel)

    def pause(self, model_name: str, channel: str, *, by: str, why: str) -> Pause:
        """Let nobody promote to a channel, no rule either, until it goes on; it can still be rolled back.

        Raises:
            ConfigError: no such channel, nobody or no reason, or it is paused already.
            DataError: there is no such model.
        """
        return self._hold(model_name, channel, True, by, why)

    def go_on(self, model_name: str, channel: str, *, by: str, why: str) -> Pause:
        """End a pause.

        Raises:
            ConfigError: no such channel, nobody or no reason, or it is not paused.
            DataError: there is no such model.
        """
        return self._hold(model_name, channel, False, by, why)

    def paused(self, model_name: str, channel: str) -> Pause | None:
        """Who has paused a channel, and why; None where nobody has.

        Raises:
            ConfigError: no such channel.
        """
        _known(channel)
        with reading(self.engine) as connection:
            return _held(connection, model_name, channel)

    def _hold(self, model_name: str, channel: str, paused: bool, by: str, why: str) -> Pause:
        _known(channel)
        _said(by=by, why=why)
        with writing(self.engine) as connection:
            if connection.scalar(sql.select(model.c.name).where(model.c.name == model_name)) is None:
                raise DataError(f"no model {model_name}", "see the list of models")
            _locked(connection, model_name)
            if (_held(connection, model_name, channel) is not None) == paused:
                state = "paused already" if paused else "not paused"
                raise ConfigError(f"{channel} of {model_name} is {state}", "nothing is to be done")
            row: dict[str, Any] = {"model": model_name, "channel": channel, "paused": paused, "by": by, "why": why}
            row["unix_seconds"] = time.time()
            key = connection.execute(pause.insert(), row).inserted_primary_key
            assert key is not None
            return Pause(number=key[0], **row)


def _locked(connection: sql.Connection, name: str) -> None:
    """Nobody else changes this model until the end of the transaction; on SQLite nobody else writes at all."""
    connection.execute(sql.select(model.c.name).where(model.c.name == name).with_for_update())


def _existing(connection: sql.Connection, name: str, number: int) -> Any:
    here = sql.and_(version.c.model == name, version.c.version == number)
    row = connection.execute(sql.select(version).where(here)).first()
    if row is None:
        of = sql.select(sql.func.max(version.c.version)).where(version.c.model == name)
        newest = connection.scalar(of)
        remedy = f"the newest is {newest}" if newest else f"there is no model {name}"
        raise DataError(f"no version {number} of {name}", remedy)
    return row


def _read(connection: sql.Connection, name: str, number: int) -> Version:
    row = _existing(connection, name, number)
    files = sql.select(artefact).where(artefact.c.model == name, artefact.c.version == number)
    above = sql.select(parent.c.parent_model, parent.c.parent_version)
    above = above.where(parent.c.model == name, parent.c.version == number)
    found = {each.kind: Artefact(each.digest, each.bytes) for each in connection.execute(files.order_by("kind"))}
    parents = tuple(sorted((each[0], each[1]) for each in connection.execute(above)))
    return Version(name, number, found, parents, row.trained_from, row.by, row.unix_seconds)


def _moves(connection: sql.Connection, name: str, channel: str) -> list[Move]:
    mine = sql.select(move).where(move.c.model == name, move.c.channel == channel).order_by(move.c.number)
    return [Move(*row) for row in connection.execute(mine)]


def _moved(
    connection: sql.Connection, name: str, channel: str, number: int, before: int | None, back: bool, by: str, why: str
) -> Move:
    row: dict[str, Any] = {
        "model": name,
        "channel": channel,
        "version": number,
        "before": before,
        "back": back,
        "by": by,
        "why": why,
    }
    row["unix_seconds"] = time.time()
    key = connection.execute(move.insert(), row).inserted_primary_key
    assert key is not None
    return Move(number=key[0], **row)


def _held(connection: sql.Connection, name: str, channel: str) -> Pause | None:
    mine = sql.select(pause).where(pause.c.model == name, pause.c.channel == channel)
    row = connection.execute(mine.order_by(pause.c.number.desc()).limit(1)).first()
    return Pause(*row) if row is not None and row.paused else None


def _agreed(name: str, channel: str, there: int | None, expected: int | None) -> None:
    if expected is not None and expected != (there or 0):
        raise ConfigError(f"{channel} of {name} points to {there or 'nothing'}, not to {expected}", "decide again")


def _known(channel: str) -> None:
    if channel not in CHANNELS:
        raise ConfigError(f"no channel {channel!r}", f"there are {' and '.join(CHANNELS)}")


def _said(**texts: str) -> None:
    for name, text in texts.items():
        if not text.strip() or "\0" in text:
            raise ConfigError(f"{name} {text!r}", "say who does it and why")


def _plain(value: Mapping[str, Any], what: str) -> dict[str, Any]:
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(value), allow_nan=False))
    except (TypeError, ValueError) as fault:
        raise DataError(f"{what} cannot be written ({fault})", "use texts and finite numbers") from fault
    return plain
