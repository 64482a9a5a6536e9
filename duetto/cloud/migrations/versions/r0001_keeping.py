"""The feedback store, and the registry of models."""

import sqlalchemy as sql
from alembic import op

revision = "0001"
down_revision = None

_NUMBER = sql.BigInteger().with_variant(sql.Integer(), "sqlite")
_OF_VERSION = (["model", "version"], ["model_version.model", "model_version.version"])


def upgrade() -> None:
    """Make them."""
    op.create_table(
        "feedback",
        sql.Column("arrival", _NUMBER),
        sql.Column("device", sql.String, nullable=False),
        sql.Column("session", sql.LargeBinary, nullable=False),
        sql.Column("sequence", sql.BigInteger, nullable=False),
        sql.Column("kind", sql.String, nullable=False),
        sql.Column("body", sql.LargeBinary, nullable=False),
        sql.Column("unix_seconds", sql.Double, nullable=False),
        sql.PrimaryKeyConstraint("arrival", name="pk_feedback"),
        sql.UniqueConstraint("device", "session", "sequence", name="uq_feedback_device_session_sequence"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "feedback_forgotten",
        sql.Column("session", sql.LargeBinary, nullable=False),
        sql.Column("upto", sql.BigInteger, nullable=False),
        sql.PrimaryKeyConstraint("session", name="pk_feedback_forgotten"),
    )
    op.create_table(
        "model", sql.Column("name", sql.String, nullable=False), sql.PrimaryKeyConstraint("name", name="pk_model")
    )
    op.create_table(
        "model_version",
        sql.Column("model", sql.String, nullable=False),
        sql.Column("version", sql.Integer, nullable=False, autoincrement=False),
        sql.Column("trained_from", sql.JSON, nullable=False),
        sql.Column("by", sql.String, nullable=False),
        sql.Column("unix_seconds", sql.Double, nullable=False),
        sql.PrimaryKeyConstraint("model", "version", name="pk_model_version"),
        sql.ForeignKeyConstraint(["model"], ["model.name"], name="fk_model_version_model"),
    )
    op.create_table(
        "model_artefact",
        sql.Column("model", sql.String, nullable=False),
        sql.Column("version", sql.Integer, nullable=False, autoincrement=False),
        sql.Column("kind", sql.String, nullable=False),
        sql.Column("digest", sql.String(64), nullable=False),
        sql.Column("bytes", sql.BigInteger, nullable=False),
        sql.PrimaryKeyConstraint("model", "version", "kind", name="pk_model_artefact"),
        sql.ForeignKeyConstraint(*_OF_VERSION, name="fk_model_artefact_model_version"),
    )
    op.create_table(
        "model_parent",
        sql.Column("model", sql.String, nullable=False),
        sql.Column("version", sql.Integer, nullable=False, autoincrement=False),
        sql.Column("parent_model", sql.String, nullable=False),
        sql.Column("parent_version", sql.Integer, nullable=False, autoincrement=False),
        sql.PrimaryKeyConstraint("model", "version", "parent_model", "parent_version", name="pk_model_parent"),
        sql.ForeignKeyConstraint(*_OF_VERSION, name="fk_model_parent_model_version"),
        sql.ForeignKeyConstraint(
            ["parent_model", "parent_version"],
            ["model_version.model", "model_version.version"],
            name="fk_model_parent_parent_model_parent_version",
        ),
    )
    op.create_table(
        "model_metric",
        sql.Column("number", _NUMBER),
        sql.Column("model", sql.String, nullable=False),
        sql.Column("version", sql.Integer, nullable=False),
        sql.Column("metrics", sql.JSON, nullable=False),
        sql.Column("by", sql.String, nullable=False),
        sql.Column("unix_seconds", sql.Double, nullable=False),
        sql.PrimaryKeyConstraint("number", name="pk_model_metric"),
        sql.ForeignKeyConstraint(*_OF_VERSION, name="fk_model_metric_model_version"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_model_metric_model_version", "model_metric", ["model", "version"])
    op.create_table(
        "model_move",
        sql.Column("number", _NUMBER),
        sql.Column("model", sql.String, nullable=False),
        sql.Column("channel", sql.String, nullable=False),
        sql.Column("version", sql.Integer, nullable=False),
        sql.Column("before", sql.Integer),
        sql.Column("back", sql.Boolean, nullable=False),
        sql.Column("by", sql.String, nullable=False),
        sql.Column("why", sql.String, nullable=False),
        sql.Column("unix_seconds", sql.Double, nullable=False),
        sql.PrimaryKeyConstraint("number", name="pk_model_move"),
        sql.ForeignKeyConstraint(*_OF_VERSION, name="fk_model_move_model_version"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_model_move_model_channel_number", "model_move", ["model", "channel", "number"])
