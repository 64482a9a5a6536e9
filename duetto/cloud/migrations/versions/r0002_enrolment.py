"""Who may connect: tokens, and the devices that were enrolled with them."""

import sqlalchemy as sql
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make them."""
    op.create_table(
        "tokens",
        sql.Column("hash", sql.String(64), nullable=False, comment="SHA-256 of the token, in hex"),
        sql.Column("device", sql.String(63), nullable=False, comment="the name that may enrol, or a pattern: phone-*"),
        sql.Column("issuer", sql.Text, nullable=False),
        sql.Column("issued", sql.Double, nullable=False, comment="seconds since 1970, as all times"),
        sql.Column("expires", sql.Double, nullable=False),
        sql.Column("used", sql.Double),
        sql.Column("fingerprint", sql.String(64), comment="of the key that used it"),
        sql.PrimaryKeyConstraint("hash", name="pk_tokens"),
    )
    op.create_table(
        "devices",
        sql.Column("fingerprint", sql.String(64), nullable=False, comment="SHA-256 of the public key, in hex"),
        sql.Column("name", sql.String(63), nullable=False),
        sql.Column("serial", sql.String(40), nullable=False, comment="of the certificate, in hex"),
        sql.Column("certificate", sql.Text, nullable=False, comment="PEM"),
        sql.Column("enrolled", sql.Double, nullable=False),
        sql.Column("revoked", sql.Double),
        sql.Column("reason", sql.Text),
        sql.Column("seen", sql.Double),
        sql.PrimaryKeyConstraint("fingerprint", name="pk_devices"),
    )
    op.create_index(
        "one_key_a_name",
        "devices",
        ["name"],
        unique=True,
        sqlite_where=sql.text("revoked IS NULL"),
        postgresql_where=sql.text("revoked IS NULL"),
    )
