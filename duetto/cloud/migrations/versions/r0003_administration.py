"""Who may administer, what they did, channels that are paused, and who is connected."""

import sqlalchemy as sql
from alembic import op

revision = "0003"
down_revision = "0002"

_NUMBER = sql.BigInteger().with_variant(sql.Integer(), "sqlite")


def upgrade() -> None:
    """Make them."""
    op.create_table(
        "operators",
        sql.Column("id", sql.String(16), nullable=False, comment="the token's public part"),
        sql.Column("name", sql.String(63), nullable=False),
        sql.Column("role", sql.String(16), nullable=False),
        sql.Column("hash", sql.String(64), nullable=False, comment="SHA-256 of the token's secret part, in hex"),
        sql.Column("issued", sql.Double, nullable=False, comment="seconds since 1970, as all times"),
        sql.Column("expires", sql.Double, nullable=False),
        sql.Column("revoked", sql.Double),
        sql.PrimaryKeyConstraint("id", name="pk_operators"),
    )
    op.create_table(
        "audit",
        sql.Column("number", sql.BigInteger, nullable=False, autoincrement=False),
        sql.Column("unix_seconds", sql.Double, nullable=False),
        sql.Column("who", sql.Text, nullable=False),
        sql.Column("action", sql.Text, nullable=False),
        sql.Column("about", sql.Text, nullable=False, comment="JSON, as it was hashed"),
        sql.Column("hash", sql.String(64), nullable=False, comment="SHA-256 of all that and the hash before, in hex"),
        sql.PrimaryKeyConstraint("number", name="pk_audit"),
    )
    op.create_table(
        "presence",
        sql.Column("device", sql.String, nullable=False),
        sql.Column("process", sql.String(32), nullable=False),
        sql.Column("since", sql.Double, nullable=False, comment="seconds since 1970, as all times"),
        sql.Column("beat", sql.Double, nullable=False, comment="the process's last sign of life"),
        sql.Column("software", sql.String, nullable=False),
        sql.Column("version", sql.BigInteger, comment="of the model that it had when it connected, if it said so"),
        sql.PrimaryKeyConstraint("device", "process", name="pk_presence"),
    )
    op.create_table(
        "model_pause",
        sql.Column("number", _NUMBER),
        sql.Column("model", sql.String, nullable=False),
        sql.Column("channel", sql.String, nullable=False),
        sql.Column("paused", sql.Boolean, nullable=False),
        sql.Column("by", sql.String, nullable=False),
        sql.Column("why", sql.String, nullable=False),
        sql.Column("unix_seconds", sql.Double, nullable=False),
        sql.PrimaryKeyConstraint("number", name="pk_model_pause"),
        sql.ForeignKeyConstraint(["model"], ["model.name"], name="fk_model_pause_model"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_model_pause_model_channel_number", "model_pause", ["model", "channel", "number"])
