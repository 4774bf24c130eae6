"""The walk of a call, whatever two processes do in any order."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import Engine, text

from agentlin_bridge import AlreadyAnswered, TaskStatus, ToolResult, UnknownCall
from agentlin_bridge.delegation.ledger import reading, writing
from agentlin_bridge.delegation.ledger.records import CallState, RoundState, TaskRecord
from agentlin_bridge.task import TaskObject

from .sample import NEW, opened

CALLS = st.sampled_from(["a", "b"])
ORDER = [CallState.REQUESTED, CallState.STARTED, CallState.ANSWERED, CallState.DELIVERED]


class CallWalk(RuleBasedStateMachine):
    """Two processes, `p` and `q`, do whatever they like in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.engine = self.emptied()
        self.before: dict[tuple[int, str], CallState] = {}
        self.results: dict[tuple[int, str], ToolResult] = {}
        self.started: dict[tuple[int, str], int] = {}
        self.round_ids: list[str] = []
        self.was: TaskStatus | None = None

    def emptied(self) -> Engine:
        self.directory = tempfile.TemporaryDirectory()
        return opened(Path(self.directory.name) / "ledger.sqlite3")

    def teardown(self) -> None:
        self.engine.dispose()
        self.directory.cleanup()

    def do(self, function: Any, *arguments: Any, **keywords: Any) -> Any:
        with self.engine.begin() as connection:
            return function(connection, *arguments, **keywords)

    @property
    def task(self) -> TaskRecord:
        found = self.do(reading.load, "task_1")
        assert isinstance(found, TaskRecord)
        return found

    @initialize()
    def create(self) -> None:
        self.do(writing.create_task, NEW, owner="p")

    @rule(status=st.sampled_from(["input-required", "completed"]))
    def settle(self, status: str) -> None:
        current = self.task.current
        output = [{"type": "tool_call", "call_id": call, "name": "n"} for call in "ab"] if status != "completed" else []
        remote = TaskObject.model_validate({"id": current.remote_id, "status": status, "output": output})
        self.do(writing.mark_seen, "task_1", current.seq, remote)
        judged: dict[str, Any] = {"status": remote.status, "answer": None, "error": None, "usage": {}}
        settled = self.do(writing.settle_round, "task_1", current.seq, remote, **judged)
        assert settled is (current.state is not RoundState.SETTLED and not self.was_terminal)
        assert self.do(writing.settle_round, "task_1", current.seq, remote, **judged) is False

    @rule(call=CALLS, owner=st.sampled_from("pq"), previous=st.sampled_from([None, "p", "q"]))
    def start(self, call: str, owner: str, previous: str | None) -> None:
        seq = self.task.current.seq
        if self.do(writing.start_call, "task_1", seq, call, owner=owner, previous=previous):
            key = (seq, call)
            assert self.before[key] is (CallState.REQUESTED if previous is None else CallState.STARTED)
            self.started[key] = self.started.get(key, 0) + 1

    @rule(call=CALLS, text=st.sampled_from("xy"))
    def answer(self, call: str, text: str) -> None:
        seq = self.task.current.seq
        result = ToolResult.model_validate({"content": text})
        if self.do(writing.answer_call, "task_1", seq, call, result):
            assert (seq, call) not in self.results
            self.results[seq, call] = result

    @rule(calls=st.dictionaries(CALLS | st.just("zzz"), st.sampled_from("xy"), min_size=1))
    def submit(self, calls: dict[str, str]) -> None:
        given = {call: ToolResult.model_validate({"content": text}) for call, text in calls.items()}
        before = self.task
        try:
            self.do(writing.submit, "task_1", given)
        except (UnknownCall, AlreadyAnswered):
            assert self.task == before
            return
        for call, result in given.items():
            seq = max(round_.seq for round_ in before.rounds if any(c.call_id == call for c in round_.calls))
            assert self.results.setdefault((seq, call), result) == result

    @rule(owner=st.sampled_from("pq"))
    def proceed(self, owner: str) -> None:
        current = self.task.current
        claimed = self.do(writing.claim_continuation, "task_1", current.seq, f"task_{current.seq + 1}", owner=owner)
        if claimed:
            assert current.state is RoundState.SETTLED
            assert all(call.is_answered for call in current.calls)
        assert not self.do(writing.claim_continuation, "task_1", current.seq, "task_other", owner="q")

    @rule(fence=st.integers(1, 3), owner=st.sampled_from("pq"))
    def take_over(self, fence: int, owner: str) -> None:
        current = self.task.current
        taken = self.do(writing.take_over, "task_1", current.seq, fence=fence, owner=owner)
        assert taken is (current.state is RoundState.CLAIMED and current.fence == fence)
        if taken:
            assert (self.task.current.fence, self.task.current.owner) == (fence + 1, owner)

    @rule()
    def cancel(self) -> None:
        assert self.do(writing.finish, "task_1", TaskStatus.CANCELED, None) is not self.was_terminal

    @property
    def was_terminal(self) -> bool:
        return self.was is not None and self.was.is_terminal

    @invariant()
    def calls_walk_one_way_and_results_stand(self) -> None:
        task = self.task
        for round_ in task.rounds:
            for call in round_.calls:
                key = (round_.seq, call.call_id)
                before = self.before.get(key, CallState.REQUESTED)
                assert ORDER.index(call.state) >= ORDER.index(before)
                self.before[key] = call.state
                assert call.result == self.results.get(key)
                assert call.attempt == self.started.get(key, 0)
        for round_ in task.rounds[:-1]:
            assert round_.is_answered
        ids = [round_.remote_id for round_ in task.rounds]
        assert ids[: len(self.round_ids)] == self.round_ids
        self.round_ids = ids
        if self.was_terminal:
            assert task.status is self.was
        self.was = task.status


TestCallWalk = CallWalk.TestCase
TestCallWalk.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)


class WalkOnPostgres(CallWalk):
    """All on one database, which is emptied for each."""

    shared: ClassVar[Engine]

    def emptied(self) -> Engine:
        with self.shared.begin() as connection:
            connection.execute(text("TRUNCATE tasks, rounds, calls"))
        return self.shared

    def teardown(self) -> None:
        """The database stays open."""


def test_call_walk_on_postgres(on_postgres: str) -> None:
    WalkOnPostgres.shared = opened(on_postgres)
    few = settings(max_examples=15, stateful_step_count=20, deadline=None)
    run_state_machine_as_test(WalkOnPostgres, settings=few)
    WalkOnPostgres.shared.dispose()
