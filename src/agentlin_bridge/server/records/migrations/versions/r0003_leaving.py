"""Rounds that were ended from outside and have yet to be left; who is in a round; tombstones that are small."""

import json
import time

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_GRAVE = 16 * 1024
_KEPT = ("object", "id", "session_id", "user_id", "status", "created_at", "previous_task_id", "usage")
_WHY = {"code": -32000, "message": "The task that went on with its results was deleted."}


def upgrade() -> None:
    """Bring what older versions left into the form that holds from now on."""
    op.create_table(
        "leaving",
        sa.Column("task_id", sa.String(200), primary_key=True),
        sa.Column("session_id", sa.String(200), nullable=False),
        sa.Column("executor", sa.String(40), nullable=False),
    )
    op.create_index("leaving_by_session", "leaving", ["session_id"])
    connection = op.get_bind()
    connection.execute(sa.text("UPDATE tasks SET executor = NULL WHERE status NOT IN ('created', 'working', 'paused')"))
    _end_what_cannot_go_on(connection)
    _shrink_tombstones(connection)


def _end_what_cannot_go_on(connection: sa.Connection) -> None:
    """The last link of these turns was deleted."""
    rows = connection.execute(
        sa.text(
            "SELECT id, status, told FROM tasks WHERE continued_by IS NOT NULL"
            " AND NOT EXISTS (SELECT 1 FROM tasks AS later"
            " WHERE later.turn_id = tasks.turn_id AND later.seq > tasks.seq)"
        )
    )
    for task_id, status, told in rows.all():
        connection.execute(sa.text("UPDATE tasks SET continued_by = NULL WHERE id = :id"), {"id": task_id})
        if status in {"completed", "canceled", "failed", "expired"}:
            continue
        now = time.time()
        connection.execute(
            sa.text(
                "UPDATE tasks SET status = 'canceled', error = :error, finished_at = :now, told = :told WHERE id = :id"
            ),
            {"error": json.dumps(_WHY), "now": now, "told": told + 1, "id": task_id},
        )
        connection.execute(
            sa.text(
                "INSERT INTO events (task_id, number, at, status, item, step)"
                " VALUES (:id, :number, :now, 'canceled', NULL, 0)"
            ),
            {"id": task_id, "number": told + 1, "now": now},
        )


def _shrink_tombstones(connection: sa.Connection) -> None:
    large = connection.execute(
        sa.text("SELECT id, answer FROM tombstones WHERE length(CAST(answer AS TEXT)) > :most"), {"most": _GRAVE}
    )
    for task_id, answer in large.all():
        task = answer if isinstance(answer, dict) else json.loads(answer)
        small = json.dumps({name: task[name] for name in _KEPT if name in task})
        connection.execute(
            sa.text("UPDATE tombstones SET answer = :answer WHERE id = :id"), {"answer": small, "id": task_id}
        )


def downgrade() -> None:
    """An older version would not wait until a round is left."""
    raise NotImplementedError("restore the database from before the upgrade")
