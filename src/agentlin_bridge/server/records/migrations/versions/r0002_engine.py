"""What the durable engine needs: events, attempts, expiry and tombstones."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Move the output of every task into events of its own."""
    op.create_table(
        "events",
        sa.Column("task_id", sa.String(200), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("status", sa.String(20)),
        sa.Column("item", sa.JSON),
        sa.Column("step", sa.Integer, nullable=False),
    )
    op.create_table(
        "tombstones",
        sa.Column("id", sa.String(200), primary_key=True),
        sa.Column("user_id", sa.String(200), nullable=False),
        sa.Column("deleted_at", sa.Float, nullable=False),
        sa.Column("answer", sa.JSON, nullable=False),
    )
    op.create_index("tombstones_by_age", "tombstones", ["deleted_at"])
    op.create_index("calls_by_turn", "calls", ["turn_id", "state"])
    op.add_column("tasks", sa.Column("steps", sa.Integer, nullable=False, server_default="0"))
    op.add_column("tasks", sa.Column("attempt", sa.Integer, nullable=False, server_default="1"))
    op.add_column("tasks", sa.Column("executor", sa.String(40)))
    op.add_column("tasks", sa.Column("usage", sa.JSON))
    op.add_column("tasks", sa.Column("size", sa.Integer, nullable=False, server_default="0"))
    op.add_column("tasks", sa.Column("told", sa.Integer, nullable=False, server_default="0"))
    op.add_column("tasks", sa.Column("expires_at", sa.Float))
    op.add_column("tasks", sa.Column("finished_at", sa.Float))
    op.create_index("tasks_by_expiry", "tasks", ["expires_at"])
    _move_output()
    op.drop_column("tasks", "output")


def _move_output() -> None:
    connection = op.get_bind()
    tasks = connection.execute(
        sa.text("SELECT id, status, created_at, output, (SELECT count(*) FROM calls WHERE asked_by = id) FROM tasks")
    )
    for task_id, status, created_at, output, asked in tasks.all():
        items = output if isinstance(output, list) else json.loads(output)
        # Tool calls of a task that asked none are repeated from the task before it, and no model's.
        step = 0 if not asked and any(item.get("type") == "tool_call" for item in items) else int(bool(items))
        rows = [("created", None, 0), *((None, json.dumps(item), step) for item in items)]
        if status != "created":
            rows.append((status, None, step))
        for number, (became, item, of_step) in enumerate(rows, 1):
            connection.execute(
                sa.text("INSERT INTO events VALUES (:task_id, :number, :at, :status, :item, :step)"),
                {
                    "task_id": task_id,
                    "number": number,
                    "at": created_at,
                    "status": became,
                    "item": item,
                    "step": of_step,
                },
            )
        connection.execute(
            sa.text(
                "UPDATE tasks SET steps = :step, told = :told, size = :size, finished_at = :finished_at "
                "WHERE id = :task_id"
            ),
            {
                "told": len(rows),
                "step": step,
                "size": sum(len(json.dumps(item)) for item in items),
                "finished_at": created_at if status in {"completed", "canceled", "failed", "expired"} else None,
                "task_id": task_id,
            },
        )


def downgrade() -> None:
    """An older version cannot run what this one has begun."""
    raise NotImplementedError("restore the database from before the upgrade")
