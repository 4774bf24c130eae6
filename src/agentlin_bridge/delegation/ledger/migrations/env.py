"""Run by Alembic on a connection that `agentlin_bridge.database` has already opened a transaction on."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], transactional_ddl=False)
context.run_migrations()
