"""Tasks, and the tool calls they wait for."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the first schema."""
    op.create_table(
        "tasks",
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(200), nullable=False, unique=True),
        sa.Column("session_id", sa.String(200), nullable=False),
        sa.Column("user_id", sa.String(200), nullable=False),
        sa.Column("turn_id", sa.String(200), nullable=False),
        sa.Column("previous_task_id", sa.String(200)),
        sa.Column("continued_by", sa.String(200)),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("created_at", sa.Integer, nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("request", sa.JSON, nullable=False),
        sa.Column("output", sa.JSON, nullable=False),
        sa.Column("error", sa.JSON),
        sa.Column("tool_calls", sa.Integer, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("tasks_by_session", "tasks", ["session_id", "seq"])
    op.create_index("tasks_by_user", "tasks", ["user_id", "seq"])
    op.create_index("tasks_by_status", "tasks", ["status", "seq"])
    op.create_index("tasks_by_turn", "tasks", ["turn_id", "seq"])
    op.create_table(
        "calls",
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("session_id", sa.String(200), nullable=False),
        sa.Column("turn_id", sa.String(200), nullable=False),
        sa.Column("call_id", sa.Text, nullable=False),
        sa.Column("asked_by", sa.String(200), nullable=False),
        sa.Column("answered_by", sa.String(200)),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("call", sa.JSON, nullable=False),
        sa.Column("result", sa.JSON),
        sqlite_autoincrement=True,
    )
    op.create_index("calls_by_session", "calls", ["session_id", "state"])
    op.create_index("calls_by_asker", "calls", ["asked_by"])
    op.create_index("calls_by_answer", "calls", ["answered_by"])


def downgrade() -> None:
    """There is nothing before the first schema."""
    op.drop_table("calls")
    op.drop_table("tasks")
