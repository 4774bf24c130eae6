"""One delegation, on the portal's thread: find or create its task, wait, ask, and cancel it when the caller leaves."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from agentlin_bridge import TaskBridge
from agentlin_bridge.errors import RequestConflict, TaskNotFound
from agentlin_bridge.hosts.langchain.asking import Asker
from agentlin_bridge.hosts.langchain.caller import Caller
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
        principal: whose task it is; None leaves that to the bridge.
        timeout: seconds to wait for an answer.
        stream: whether to follow it by event stream; None leaves that to the bridge.
        standing: where in a graph the call stands; None outside one.
    """

    instructions: str
    reviews: Reviews
    caller: Caller
    reporter: Reporter
    principal: str | None
    timeout: float | None
    stream: bool | None
    standing: Standing | None

    @property
    def key(self) -> tuple[str | None, str] | None:
        """The same for every call that stands for this delegation."""
        return None if self.standing is None else (self.principal, self.standing.request_id(self.instructions, 0))


_users: Counter[tuple[str | None, str]] = Counter()
_leaving: dict[tuple[str | None, str], asyncio.Future[None]] = {}


async def delegate(bridge: TaskBridge, order: Order) -> Task:
    """Have a task done, or found again where the graph runs the call again; its questions go to the person.

    A caller that is cancelled cancels the task, unless another call of the same standing has taken it over.

    Raises:
        GraphInterrupt: the person has to decide something first. The task waits.
    """
    if order.principal is not None:
        bridge = bridge.acting_for(order.principal)
    key = order.key
    while key in _leaving:
        await asyncio.shield(_leaving[key])
    with _using(key):
        creating = asyncio.ensure_future(_created(bridge, order))
        try:
            task = await asyncio.shield(creating)
            order.caller.task_id = task.id
            return await _brought_to_end(bridge, order, task)
        except asyncio.CancelledError:
            if key is None or _users[key] == 1:
                with _being_left(key):
                    await bridge.cancel((await creating).id)
            raise


@contextmanager
def _using(key: tuple[str | None, str] | None) -> Iterator[None]:
    if key is None:
        yield
        return
    _users[key] += 1
    try:
        yield
    finally:
        _users[key] -= 1
        if not _users[key]:
            del _users[key]


@contextmanager
def _being_left(key: tuple[str | None, str] | None) -> Iterator[None]:
    """While entered, a call that stands for the same delegation waits: the task it would find is being canceled."""
    if key is None:
        yield
        return
    over = _leaving[key] = asyncio.get_running_loop().create_future()
    try:
        yield
    finally:
        del _leaving[key]
        over.set_result(None)


async def _created(bridge: TaskBridge, order: Order) -> Task:
    for attempt in itertools.count():
        request_id = None if order.standing is None else order.standing.request_id(order.instructions, attempt)
        try:
            task = await bridge.create(
                order.instructions, client_tools=order.reviews.tools, request_id=request_id, stream=order.stream
            )
        except RequestConflict as conflict:
            # The graph goes on with the task it has, though the host's tools are described otherwise now.
            task = await bridge.retrieve(conflict.task_id)
        except TaskNotFound:
            if request_id is None:
                raise
            continue
        if task.status not in _REPLACED:
            return task
    raise AssertionError("attempts are endless")


async def _brought_to_end(bridge: TaskBridge, order: Order, task: Task) -> Task:
    ends_at = None if order.timeout is None else asyncio.get_running_loop().time() + order.timeout
    with ExitStack() as stack:
        asker = None
        if order.standing is not None and order.standing.can_wait:
            asker = Asker(order.caller, order.standing)
            stack.enter_context(asker.taking_part())
        while True:
            left = None if ends_at is None else max(0.0, ends_at - asyncio.get_running_loop().time())
            async with order.reporter.reporting(bridge, task.id):
                task = await bridge.wait(task.id, timeout=left, client_tools=order.reviews.tools)
            if not task.pending or asker is None:
                return task
            if questions := await order.reviews.questions(bridge, task, order.caller):
                await asker.settle(bridge, task, questions)
