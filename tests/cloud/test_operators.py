"""Operators' tokens: told once, kept as hashes, with a role, for a time."""

import pytest
import sqlalchemy as sql

from duetto.cloud.database import reading
from duetto.cloud.operators import Operators, operators
from duetto.errors import ConfigError, DataError


class Clock:
    """Seconds that a test sets."""

    now = 1e9

    def __call__(self) -> float:
        return self.now


def test_a_token_is_known_while_it_holds(engine: sql.Engine) -> None:
    clock = Clock()
    made = Operators(engine, clock)
    token = made.add("anna", "operator", days=2)
    found = made.known(token)
    assert found is not None
    assert (found.name, found.role, found.expires - found.issued) == ("anna", "operator", 2 * 86400)
    assert found.may("viewer")
    assert found.may("operator")
    clock.now += 2 * 86400
    assert made.known(token) is None


def test_a_viewer_may_only_look(engine: sql.Engine) -> None:
    made = Operators(engine)
    found = made.known(made.add("prometheus", "viewer"))
    assert found is not None
    assert found.may("viewer")
    assert not found.may("operator")


def test_only_hashes_are_kept(engine: sql.Engine) -> None:
    secret = Operators(engine).add("anna", "viewer").rpartition("_")[2]
    with reading(engine) as connection:
        assert secret not in str(connection.execute(operators.select()).all())


def test_other_tokens_are_nobody_s(engine: sql.Engine) -> None:
    made = Operators(engine)
    token, other = made.add("anna", "viewer"), made.add("bert", "viewer")
    mixed = f"{token[: token.rindex('_')]}_{other.rpartition('_')[2]}"  # anna's number, bert's secret
    for wrong in ("", "duetto", token[:-1], f"{token}0", token.upper(), mixed, "duetto_" + "0" * 16 + "_" + "0" * 64):
        assert made.known(wrong) is None


def test_tokens_are_taken_back_by_name(engine: sql.Engine) -> None:
    made = Operators(engine)
    tokens = [made.add("anna", "viewer"), made.add("anna", "operator")]
    other = made.add("bert", "viewer")
    assert made.revoke("anna") == 2
    assert [made.known(token) for token in tokens] == [None, None]
    assert made.known(other) is not None
    assert [(each.name, each.revoked is None) for each in made.all()] == [
        ("anna", False),
        ("anna", False),
        ("bert", True),
    ]
    with pytest.raises(DataError, match="no token of anna"):
        made.revoke("anna")


@pytest.mark.parametrize(
    ("given", "fault"),
    [(("", "viewer"), "named"), (("anna", "admin"), "no role"), (("anna", "viewer", 0), "days")],
)
def test_what_cannot_be_is_refused(engine: sql.Engine, given: tuple[str, str], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        Operators(engine).add(*given)
