"""Alembic runs this file for a connection that the caller has opened, in the caller's transaction."""

from alembic import context

from duetto.cloud.database import metadata


def upgrade() -> None:
    """Take the steps that are asked for."""
    connection = context.config.attributes["connection"]
    # SQLite alters little of a table: there a step copies it
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


if hasattr(context, "config"):  # not so where a module is only looked at
    upgrade()
