"""Alembic runs this file. The caller has opened the connection and its transaction, and commits it."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], target_metadata=None)
context.run_migrations()
