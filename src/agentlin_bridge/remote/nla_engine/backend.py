"""The `nla` backend: runs one-pass workflow agents on NLA Engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlsplit

from pydantic import SecretStr

from agentlin_bridge.errors import (
    InvalidRequestError,
    RemoteError,
    RemoteNotFound,
    RemoteProtocolError,
)
from agentlin_bridge.remote.backend import AgentSummary, Listener, StartRequest
from agentlin_bridge.remote.nla_engine.discovery import agents_of
from agentlin_bridge.remote.nla_engine.options import check_options, run_of
from agentlin_bridge.remote.nla_engine.pace import Pace, Watch
from agentlin_bridge.remote.nla_engine.reading import created_at, read_task, said_status, task_id_of
from agentlin_bridge.remote.nla_engine.secrets import Secrets
from agentlin_bridge.remote.nla_engine.starting import Starter
from agentlin_bridge.remote.nla_engine.transport import ANSWER_TIMEOUT, Transport
from agentlin_bridge.remote.one_pass import OnePassBackend
from agentlin_bridge.remote.repeating import REPEATABLE, repeated, repeating
from agentlin_bridge.task import RemoteOutcome, TaskObject, TaskStatus, TextContentItem

NOTICE = (
    "NLA Engine: agents take text and answer once; they cannot call your tools, and what runs there cannot be stopped"
)
"""What a host is told before it delegates."""

LISTED = 1000
"""So many tasks are listed at most, the newest."""

_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})


class NlaEngineBackend(OnePassBackend):
    """Runs tasks on NLA Engine.

    Args:
        base_url: the address before `/api/v1`.
        api_key: sent as `apikey`.
        name: the backend's name in settings and ledger.
        agent_id: the agent that runs where a task names none.
        secrets: what `${NAME}` in options stands for; options are kept in the ledger, these are not.
        pace: how often running tasks are asked for, and when they are given up.
        compares: whether the list is read before each start without a callback, so that a start whose answer
            is lost can be found again. It costs a request; the list has no pages.
        marks_callbacks: whether a callback's fragment says whose run it is, so that a start whose answer is
            lost is found for certain, even by another process.
        answer_timeout: seconds one request may take.
    """

    def __init__(
        self,
        base_url: str,
        api_key: SecretStr | None = None,
        *,
        name: str = "nla",
        agent_id: str | None = None,
        secrets: Mapping[str, SecretStr] | None = None,
        pace: Pace | None = None,
        compares: bool = True,
        marks_callbacks: bool = True,
        answer_timeout: float = ANSWER_TIMEOUT,
    ) -> None:
        pace = pace or Pace()
        self._agent_id = agent_id
        self._marks = marks_callbacks
        self._secrets = Secrets(api_key, secrets or {})
        self._transport = Transport(
            base_url,
            api_key,
            self._secrets,
            is_local=urlsplit(base_url).hostname in _LOCAL,
            answer_timeout=answer_timeout,
        )
        super().__init__(name, self._transport.base_url, NOTICE)
        self._watch = Watch(pace)
        self._starter = Starter(self._transport, self._listing, pace, compares=compares)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._transport.close()

    def check_options(self, options: Mapping[str, Any]) -> None:
        check_options(options, self._secrets, self._agent_id)

    # Running ---------------------------------------------------------------------------------------------

    async def start(self, request: StartRequest, *, listener: Listener | None = None) -> TaskObject:
        """Start the run and return its task at once, under the engine's id; `retrieve` follows it.

        Raises:
            RemoteUnavailable: nothing was sent, or it was turned away.
            RemoteError: it was refused, cannot be sent, or nobody can tell whether it runs; it must not be
                sent again.
        """
        texts = _texts(request)
        try:
            run = run_of(
                request.options,
                texts,
                self._secrets,
                default_agent=self._agent_id,
                mark=request.remote_id if self._marks else None,
            )
        except InvalidRequestError as error:
            # It could be used when the task was created; its secret is gone since.
            raise RemoteError(error.message, next_step=error.next_step) from error
        return self._saw(await self._starter.start(request.remote_id, run))

    # Looking ---------------------------------------------------------------------------------------------

    async def retrieve(self, remote_id: str) -> TaskObject:
        """The task as it stood at the last look; a running one is looked at again when its pause is over.

        Args:
            remote_id: the engine's id, or the one a start was given.

        Raises:
            RemoteNotFound: there is no such task.
            ReplyLost: a start that got no answer is still looked for.
            RemoteError: nobody can tell whether it was started.
        """
        theirs = await self._starter.remote_id(remote_id)
        if (last := self._watch.current(theirs)) is not None:
            return last
        try:
            return self._saw(await repeating(self._get, theirs))
        except RemoteNotFound:
            self._watch.forget(theirs)
            raise

    async def _get(self, task_id: str) -> Any:
        return await self._transport.send("GET", _path(task_id), what="such task")

    def _saw(self, raw: Any) -> TaskObject:
        task = read_task(raw, self._secrets)
        return self._watch.saw(task, said_status(raw, self._secrets))

    async def list(
        self, *, session_id: str | None = None, status: TaskStatus | None = None
    ) -> AsyncIterator[TaskObject]:
        if session_id is not None:
            # It has no sessions.
            return
        newest_first = sorted(await self._listing(), key=lambda raw: created_at(raw) or 0, reverse=True)
        left = LISTED
        for raw in newest_first:
            task = read_task(raw, self._secrets)
            if status in (None, task.status) and left:
                left -= 1
                yield task

    async def _listing(self) -> Sequence[Mapping[str, Any]]:
        found = await repeating(self._transport.send, "GET", "/task", what="list of tasks")
        if not isinstance(found, list):
            raise RemoteProtocolError(
                "NLA Engine's list of tasks is no list.",
                next_step="check that NLA_ENGINE_BASE_URL is the address before /api/v1",
            )
        return [raw for raw in found if task_id_of(raw) is not None]

    async def agents(self, query: str = "") -> Sequence[AgentSummary]:
        """The engine's agents.

        Args:
            query: searched for in their descriptions; the engine then gives a few at most. Empty: all.

        Raises:
            RemoteError: it cannot be asked.
        """
        params = {"query": query} if query else None
        found = await repeating(self._transport.send, "GET", "/agent", what="list of agents", params=params)
        return agents_of(found, self._secrets)

    # Ending ----------------------------------------------------------------------------------------------

    async def cancel(self, remote_id: str, *, stream_closed: bool = False) -> RemoteOutcome:
        """NLA Engine knows no cancel: nothing is sent, and the run goes on."""
        self._watch.forget(self._starter.known_id(remote_id))
        return "unsupported"

    async def delete(self, remote_id: str) -> RemoteOutcome:
        """Delete the record of a task, for ever. That does not stop a run, as far as anybody knows."""
        theirs = await self._starter.remote_id(remote_id)
        self._watch.forget(theirs)
        try:
            deleted = await self._delete(theirs)
        except REPEATABLE:
            try:
                deleted = await repeated(self._delete, theirs)
            except RemoteNotFound:
                # The first request had its effect; what it deleted is not known.
                return "kept running"
        try:
            return "kept running" if read_task(deleted, self._secrets).status is TaskStatus.WORKING else "stopped"
        except RemoteProtocolError:
            return "kept running"

    async def _delete(self, task_id: str) -> Any:
        return await self._transport.send("DELETE", _path(task_id), what="such task")


def _path(task_id: str) -> str:
    if not task_id.strip("."):
        # As a part of a URL, dots lead elsewhere.
        raise RemoteNotFound("NLA Engine has no task of that id.", next_step="list the tasks to see which there are")
    return f"/task/{quote(task_id, safe='')}"


def _texts(request: StartRequest) -> list[str]:
    """What was said, if the engine can take all of it; nothing is left out silently.

    Raises:
        RemoteError: it cannot; nothing was sent.
    """
    texts = [item.text for item in request.content if isinstance(item, TextContentItem)]
    problem = None
    if request.client_tools:
        problem = "cannot call client tools", "leave them out"
    elif request.previous_remote_id is not None:
        problem = "cannot continue a task: it keeps no conversation", "put what matters of it into the instructions"
    elif len(texts) != len(request.content):
        problem = "takes text only", "leave out images, audio and files, or put their text into the instructions"
    if problem is not None:
        raise RemoteError(f"NLA Engine {problem[0]}. Nothing was started.", next_step=problem[1])
    return texts
