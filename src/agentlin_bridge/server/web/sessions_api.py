"""Sessions: by which names clients know them, and the published server's route that stops one."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from agentlin_bridge.server.execution.runs import Runs
from agentlin_bridge.server.protocol.bodies import StopBody, checked
from agentlin_bridge.server.protocol.refusals import Refusal
from agentlin_bridge.server.protocol.request import read_json
from agentlin_bridge.server.protocol.wire import StopAnswer
from agentlin_bridge.server.records.sessions import going_in, session_of
from agentlin_bridge.server.records.store import Store
from agentlin_bridge.server.web.http import read_body, user_of
from agentlin_bridge.server.web.operation import Operation


async def stored_session(store: Store, owner: str | None, name: str) -> str:
    """The session somebody means by a name; who sees all names it as it is stored."""
    return name if owner is None else await store.read(partial(session_of, owner=owner, name=name))


class SessionApi:
    """The handler, for one server."""

    def __init__(self, runs: Runs, *, max_body: int) -> None:
        self._runs = runs
        self._max_body = max_body

    def operations(self) -> list[Operation]:
        """What this API can do."""
        return [
            Operation(
                "stop_session",
                "POST",
                "/v1/tasks/agent/stop",
                self.stop,
                "Cancel what of a session runs, waits or is queued. A session nobody knows is one that is stopped.",
                StopAnswer,
                body=StopBody,
                refusals=(400, 401, 403, 413, 500, 503),
            )
        ]

    async def stop(self, request: Request) -> Response:
        """POST /v1/tasks/agent/stop."""
        name = checked(StopBody, read_json(await read_body(request, self._max_body))).session_id
        owner = user_of(request)
        store = self._runs.store
        session_id = await stored_session(store, owner, name)
        # The newest first: a queued one would have its turn as soon as the one before it has stopped.
        for task_id in await store.read(partial(going_in, session_id=session_id, owner=owner)):
            with suppress(Refusal):  # it has just ended by itself
                await self._runs.cancel(task_id, owner)
        return JSONResponse(StopAnswer(message=f"Session {name} stopped successfully").model_dump())
