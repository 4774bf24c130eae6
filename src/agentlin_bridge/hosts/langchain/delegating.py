"""One delegation, on the portal's thread: find or create its task, wait, ask, and cancel it when the caller leaves."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable
from contextlib import ExitStack
from dataclasses import dataclass

from agentlin_bridge import TaskBridge
from agentlin_bridge.errors import RequestConflict, TaskNotFound
from agentlin_bridge.hosts.langchain.asking import Asker
from agentlin_bridge.hosts.langchain.caller import Caller
from agentlin_bridge.hosts.langchain.graph_task import GraphTask
from agentlin_bridge.hosts.langchain.reporting import Reporter
from agentlin_bridge.hosts.langchain.reviewing import Reviews
from agentlin_bridge.hosts.langchain.standing import Standing
from agentlin_bridge.task import Task, TaskStatus

_REPLACED = (TaskStatus.CANCELED, TaskStatus.EXPIRED)
"""How an attempt ends that a graph which runs its call again replaces by a new one."""


@dataclass(frozen=True)
class Order:
    """What is delegated, by whom.

    Attributes:
        agent: the profile of who does it; None leaves that to the bridge.
        principal: whose task it is; None leaves that to the bridge.
        timeout: seconds to wait for an answer.
        stream: whether to follow it by event stream; None leaves that to the bridge.
        standing: where in a graph the call stands; None outside one.
    """

    instructions: str
    reviews: Reviews
    caller: Caller
    reporter: Reporter
    agent: str | None
    principal: str | None
    timeout: float | None
    stream: bool | None
    standing: Standing | None

    @property
    def key(self) -> tuple[str | None, str] | None:
        """The same for every call that stands for this delegation."""
        return None if self.standing is None else (self.principal, self.standing.request_id(self.instructions, 0))


_holders: dict[tuple[str | None, str], asyncio.Task[object]] = {}
"""The newest call of each standing: the one whose cancellation means the task."""


async def delegate(opening: Awaitable[TaskBridge], order: Order) -> Task:
    """Have a task done, or found again where the graph runs the call again; its questions go to the person.

    A caller that is cancelled cancels the task, unless a newer call of the same standing has taken it over.

    Raises:
        GraphInterrupt: the person has to decide something first. The task waits.
    """
    with ExitStack() as stack:
        asker = None
        if order.standing is not None and order.standing.can_wait:
            asker = Asker(GraphTask(order.caller), order.standing)
            # Before anything takes time: who else runs in the graph's task has to know of us.
            stack.enter_context(asker.taking_part())
        bridge = await opening
        if order.principal is not None:
            bridge = bridge.acting_for(order.principal)
        return await _held(bridge, order, asker)


async def _held(bridge: TaskBridge, order: Order, asker: Asker | None) -> Task:
    me = asyncio.current_task()
    assert me is not None  # noqa: S101  (a coroutine of the portal is a task)
    key = order.key
    while key is not None and (before := _holders.get(key)) is not None and before.cancelling():
        # It cancels the task that we would find.
        await asyncio.wait([before])
    if key is not None:
        _holders[key] = me
    creating: asyncio.Future[Task | None] | None = None
    try:
        for attempt in itertools.count():
            creating = asyncio.ensure_future(_attempted(bridge, order, attempt))
            task = await asyncio.shield(creating)
            if task is None or (task.status in _REPLACED and key is not None):
                continue
            order.caller.task_id = task.id
            ended = await _brought_to_end(bridge, order, task, asker)
            if ended.status is TaskStatus.EXPIRED and task.status is TaskStatus.INPUT_REQUIRED:
                # It was over before the person answered.
                continue
            return ended
        raise AssertionError("attempts are endless")
    except asyncio.CancelledError:
        if creating is not None and (key is None or _holders.get(key) is me):
            created = await creating
            if created is not None:
                await bridge.cancel(created.id)
        raise
    finally:
        if key is not None and _holders.get(key) is me:
            del _holders[key]


async def _attempted(bridge: TaskBridge, order: Order, attempt: int) -> Task | None:
    """The task of an attempt; None if it was deleted."""
    request_id = None if order.standing is None else order.standing.request_id(order.instructions, attempt)
    try:
        return await bridge.create(
            order.instructions,
            client_tools=order.reviews.tools,
            agent=order.agent,
            request_id=request_id,
            stream=order.stream,
        )
    except RequestConflict as conflict:
        # The graph goes on with the task it has, though the host's tools are described otherwise now.
        return await bridge.retrieve(conflict.task_id)
    except TaskNotFound:
        return None


async def _brought_to_end(bridge: TaskBridge, order: Order, task: Task, asker: Asker | None) -> Task:
    ends_at = None if order.timeout is None else asyncio.get_running_loop().time() + order.timeout
    if asker is not None:
        asker.pass_over(task)
    while True:
        left = None if ends_at is None else max(0.0, ends_at - asyncio.get_running_loop().time())
        async with order.reporter.reporting(bridge, task.id):
            task = await bridge.wait(task.id, timeout=left, client_tools=order.reviews.tools)
            if task.pending and asker is not None and left is not None:
                # An interrupt would end the host's tools that run beside the question.
                task = await bridge.wait(task.id)
        if not task.pending or asker is None:
            return task
        if questions := await order.reviews.questions(bridge, task, order.caller):
            try:
                await asker.settle(bridge, task, questions)
            except Exception:
                # The next run binds its own tools; until then these would keep its caller alive.
                bridge.unbind(task.id)
                raise
