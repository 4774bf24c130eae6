"""The first ledger: tasks, rounds, calls, notes."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "tasks",
        sa.Column("id", sa.String(128), primary_key=True),
        sa.Column("principal", sa.String(256), nullable=False),
        sa.Column("request_id", sa.String(256)),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("backend", sa.String(64), nullable=False),
        sa.Column("place", sa.String(1024), nullable=False),
        sa.Column("agent", sa.String(256)),
        sa.Column("continue_task", sa.String(128)),
        sa.Column("previous_remote_id", sa.String(256)),
        sa.Column("content", sa.JSON, nullable=False),
        sa.Column("client_tools", sa.JSON, nullable=False),
        sa.Column("options", sa.JSON, nullable=False),
        sa.Column("output_schema", sa.JSON),
        sa.Column("metadata", sa.JSON, nullable=False),
        sa.Column("session_id", sa.String(256), nullable=False),
        sa.Column("user_id", sa.String(256), nullable=False),
        sa.Column("stream", sa.Boolean, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("answer", sa.Text),
        sa.Column("error", sa.JSON),
        sa.Column("usage", sa.JSON, nullable=False),
        sa.Column("remote_outcome", sa.String(16)),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("updated_at", sa.Float, nullable=False),
        sa.Column("deadline_at", sa.Float, nullable=False),
        sa.Column("deleted_at", sa.Float),
        sa.UniqueConstraint("principal", "request_id", name="uq_tasks_request"),
    )
    op.create_index("ix_tasks_listing", "tasks", ["principal", "created_at", "id"])
    op.create_table(
        "rounds",
        sa.Column("task_id", sa.String(128), sa.ForeignKey("tasks.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("remote_id", sa.String(256), nullable=False),
        sa.Column("session_id", sa.String(256), nullable=False),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("fence", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("status", sa.String(16)),
        sa.Column("output", sa.JSON),
        sa.Column("usage", sa.JSON),
        sa.Column("claimed_at", sa.Float, nullable=False),
        sa.Column("seen_at", sa.Float),
        sa.Column("settled_at", sa.Float),
    )
    op.create_index("ix_rounds_remote", "rounds", ["remote_id"])
    op.create_table(
        "calls",
        sa.Column("task_id", sa.String(128), sa.ForeignKey("tasks.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("call_id", sa.String(256), primary_key=True),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("name", sa.String(256), nullable=False),
        sa.Column("arguments", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("approval", sa.String(16)),
        sa.Column("edited", sa.Text),
        sa.Column("owner", sa.String(64)),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("result", sa.JSON),
        sa.Column("requested_at", sa.Float, nullable=False),
        sa.Column("started_at", sa.Float),
        sa.Column("answered_at", sa.Float),
        sa.Column("delivered_at", sa.Float),
    )
    op.create_table(
        "notes",
        sa.Column("backend", sa.String(64), primary_key=True),
        sa.Column("name", sa.String(512), primary_key=True),
        sa.Column("value", sa.String(64), nullable=False),
        sa.Column("noted_at", sa.Float, nullable=False),
    )
