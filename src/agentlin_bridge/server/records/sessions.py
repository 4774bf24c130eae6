"""Which session a user's name for it means, and what of it is still going."""

from __future__ import annotations

from hashlib import sha256

from sqlalchemy import Connection, bindparam, select

from agentlin_bridge.server.protocol.sessions import stored_name
from agentlin_bridge.server.records.schema import tasks
from agentlin_bridge.task import TaskStatus

_UNDER_WAY = tuple(status for status in TaskStatus if not status.is_terminal)
_OF_SESSION = select(tasks.c.seq).where(tasks.c.session_id == bindparam("session")).limit(1)
_MINE = _OF_SESSION.where(tasks.c.user_id == bindparam("owner"))
_STRANGE = _OF_SESSION.where(tasks.c.user_id != bindparam("owner"))
_GOING = (
    select(tasks.c.id, tasks.c.user_id)
    .where(
        tasks.c.session_id == bindparam("session"),
        tasks.c.status.in_(_UNDER_WAY),
        tasks.c.continued_by.is_(None),
    )
    .order_by(tasks.c.seq.desc())
)


def session_of(connection: Connection, owner: str, name: str) -> str:
    """The stored name of a user's session.

    It follows from user and name alone, but for sessions that got their name elsewhere: from the server, from a key
    that sees all, or from a version that stored the first user's session under the bare name and those of others
    under a digest. Such a name goes on as long as all of its tasks are the user's.
    """
    own = stored_name(owner, name)
    digest = f"sess_{sha256(f'{owner}:{name}'.encode()).hexdigest()[:32]}"
    for candidate in (own, digest, name):
        of = {"session": candidate, "owner": owner}
        if connection.execute(_MINE, of).first() and not connection.execute(_STRANGE, of).first():
            return candidate
    return own


def going_in(connection: Connection, session_id: str, owner: str | None) -> list[str]:
    """The tasks of a session that run, wait or are about to, newest first; those a user may see."""
    rows = connection.execute(_GOING, {"session": session_id})
    return [row.id for row in rows if owner in {None, row.user_id}]
