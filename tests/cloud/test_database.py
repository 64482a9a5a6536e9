"""Any database comes to the same tables, by steps or at once, whoever starts first; faults are one line."""

import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sql
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

import duetto.cloud.enrolment
import duetto.cloud.feedback
import duetto.cloud.registry  # noqa: F401  its tables
from duetto.cloud.database import alone, ignoring, metadata, opened, reading, upgraded, writing
from duetto.errors import ConfigError, DataError

TABLES = {"feedback", "feedback_forgotten", "model"} | {
    f"model_{what}" for what in ("version", "artefact", "parent", "metric", "move")
}


def differences(engine: sql.Engine) -> list[object]:
    with engine.connect() as connection:
        how = {"compare_type": True, "compare_server_default": True}
        return list(compare_metadata(MigrationContext.configure(connection, opts=how), metadata))


def test_the_steps_lead_to_the_tables_as_they_are_told(url: str) -> None:
    engine = opened(url)
    assert differences(engine) != []
    upgraded(engine)
    assert differences(engine) == []
    assert set(sql.inspect(engine).get_table_names()) >= TABLES | {"alembic_version"}
    assert differences(upgraded(engine)) == [], "once more changes nothing"
    engine.dispose()


def _texts(index: Mapping[str, Any]) -> dict[str, str]:
    """The conditions of a partial index, which compare by their words alone."""
    return {name: str(told) for name, told in index.get("dialect_options", {}).items()}


def test_made_at_once_they_are_the_same(url: str) -> None:
    """Column by column as the database sees them, keys and their names included."""

    def seen(engine: sql.Engine) -> dict[str, object]:
        look = sql.inspect(engine)
        return {
            name: (
                [{**column, "type": repr(column["type"])} for column in look.get_columns(name)],
                look.get_pk_constraint(name),
                sorted(look.get_foreign_keys(name), key=str),
                sorted(look.get_unique_constraints(name), key=str),
                sorted(
                    ({**index, "dialect_options": repr(_texts(index))} for index in look.get_indexes(name)), key=str
                ),
            )
            for name in look.get_table_names()
            if name != "alembic_version"
        }

    engine = upgraded(opened(url))
    stepped = seen(engine)
    metadata.drop_all(engine)
    metadata.create_all(engine)
    assert seen(engine) == stepped
    engine.dispose()


def test_what_is_there_stays(url: str) -> None:
    engine = upgraded(opened(url))
    with writing(engine) as connection:
        connection.execute(metadata.tables["model"].insert(), {"name": "small"})
    upgraded(engine)
    with reading(engine) as connection:
        assert connection.execute(sql.select(metadata.tables["model"])).all() == [("small",)]
    engine.dispose()


UPGRADE = "import sys; from duetto.cloud.database import opened, upgraded; upgraded(opened(sys.argv[1]))"


def test_processes_that_start_together_wait_for_one_another(url: str) -> None:
    started = [
        subprocess.Popen([sys.executable, "-c", UPGRADE, url], stderr=subprocess.PIPE, text=True) for _ in range(3)
    ]
    for process in started:
        _, said = process.communicate(timeout=60)
        assert (process.returncode, said) == (0, "")
    engine = opened(url)
    assert differences(engine) == []
    engine.dispose()


def test_who_upgrades_waits_for_who_is_at_it(url: str) -> None:
    first, second = opened(url), opened(url)
    other = threading.Thread(target=upgraded, args=(second,))
    with writing(first) as connection:
        alone(connection, "migrations")
        other.start()
        other.join(0.3)
        assert sql.inspect(connection).get_table_names() == []
    other.join()
    assert differences(second) == []
    first.dispose()
    second.dispose()


def test_a_step_that_fails_leaves_nothing_behind(url: str) -> None:
    engine = opened(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE model_version (x INTEGER)")  # in the way of the first step
    with pytest.raises((DataError, sql.exc.ProgrammingError), match="already exists"):
        upgraded(engine)
    assert sql.inspect(engine).get_table_names() == ["model_version"]
    engine.dispose()


def test_a_database_of_a_newer_duetto_is_refused(url: str) -> None:
    engine = upgraded(opened(url))
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(ConfigError, match=r"9999.*upgrade this one too"):
        upgraded(engine)
    engine.dispose()


def test_an_insert_leaves_out_what_is_there(engine: sql.Engine) -> None:
    model = metadata.tables["model"]
    for _ in range(2):
        with writing(engine) as connection:
            alone(connection, "testing")
            connection.execute(ignoring(connection, model), [{"name": "a"}, {"name": "b"}])
    with reading(engine) as connection:
        assert connection.scalars(sql.select(model.c.name).order_by(model.c.name)).all() == ["a", "b"]


def test_foreign_keys_hold_and_a_fault_undoes_all_of_a_transaction(engine: sql.Engine) -> None:
    row = {"model": "nobody", "version": 1, "trained_from": {}, "by": "x", "unix_seconds": 0.0}

    def both() -> None:
        with writing(engine) as connection:
            connection.execute(metadata.tables["model"].insert(), {"name": "small"})
            connection.execute(metadata.tables["model_version"].insert(), row)

    with pytest.raises(sql.exc.IntegrityError):
        both()
    with reading(engine) as connection:
        assert connection.execute(sql.select(metadata.tables["model"])).all() == []


@pytest.mark.parametrize("url", ["nonsense", "oracle://x", "no-such-kind://x"])
def test_an_address_without_sense_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="use sqlite:///FILE or postgresql"):
        opened(url)


def test_a_database_out_of_reach_is_told_in_one_line_without_its_password(tmp_path: Path) -> None:
    for url in (f"sqlite:///{tmp_path}/nowhere/cloud.db", f"postgresql://me:secret@/x?host={tmp_path}"):
        with pytest.raises(DataError, match="check that it is there") as caught:
            upgraded(opened(url))
        assert "\n" not in str(caught.value)
        assert "secret" not in str(caught.value)
