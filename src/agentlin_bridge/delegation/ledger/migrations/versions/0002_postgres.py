"""Sessions are looked up; on PostgreSQL, text from outside has no limits and changes of tasks are told."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_FROM_OUTSIDE = {
    "tasks": (
        *("id", "principal", "request_id", "place", "agent", "continue_task", "previous_remote_id"),
        *("session_id", "user_id"),
    ),
    "rounds": ("task_id", "remote_id", "session_id"),
    "calls": ("task_id", "call_id", "name"),
    "notes": ("name", "value"),
}


def upgrade() -> None:
    op.create_index("ix_tasks_session", "tasks", ["session_id"])
    if op.get_bind().dialect.name != "postgresql":
        # SQLite never had limits, whatever a table says.
        return
    for table, columns in _FROM_OUTSIDE.items():
        for column in columns:
            op.alter_column(table, column, type_=sa.String())
    op.execute(
        """
        CREATE FUNCTION tell_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM pg_notify(
                'agentlin_bridge_ledger', current_setting('application_name') || ' ' || NEW.id || ' ' || NEW.status
            );
            RETURN NULL;
        END $$
        """
    )
    op.execute(
        """
        CREATE TRIGGER tell_change AFTER UPDATE ON tasks FOR EACH ROW
        WHEN (NEW.version <> OLD.version) EXECUTE FUNCTION tell_change()
        """
    )
