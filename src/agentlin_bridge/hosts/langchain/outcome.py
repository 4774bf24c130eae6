"""What the host's model is told about a task."""

from __future__ import annotations

from langchain_core.tools import ToolException

from agentlin_bridge.task import Task, TaskStatus

ANSWER_CHARS = 100_000
"""Characters of an answer the model is given; the artifact has all of it."""

_REPORTED_CHARS = 500


def content_of(task: Task, timeout: float | None) -> str:
    """The answer, or how far the task is.

    Raises:
        ToolException: the task ended without an answer; it says why and what to do.
    """
    if task.status is TaskStatus.COMPLETED:
        return _bounded(task.answer) if task.answer else f"Task {task.id} is completed. It gave no answer in text."
    if task.status.is_terminal:
        raise ToolException(_without_answer(task))
    if task.pending:
        calls = "\n".join(
            f"- {call.name} ({call.call_id}): {call.arguments[:_REPORTED_CHARS]}" for call in task.pending
        )
        return (
            f"Task {task.id} has no answer yet: it waits for the results of client tools that nothing here runs.\n"
            f"{calls}\nNext: submit their results to the task by call id."
        )
    waited = f" after {timeout:g} seconds" if timeout is not None else ""
    return (
        f"Task {task.id} has no answer yet: it is still {task.status.value}{waited}, and goes on.\n"
        "Next: retrieve it later by its id, instead of delegating it again."
    )


def _bounded(answer: str) -> str:
    if len(answer) <= ANSWER_CHARS:
        return answer
    return f"{answer[:ANSWER_CHARS]}\n[cut: the answer has {len(answer):,} characters; the artifact has all of it]"


def _without_answer(task: Task) -> str:
    if task.error is None:
        return f"Task {task.id} is {task.status.value}. Next: delegate it again if it is still needed."
    cause = task.error.message
    # Errors of the bridge's own say what to do.
    step = "" if "Next: " in cause else " Next: delegate it again, with other instructions if they were the cause."
    return f"Task {task.id} {task.status.value}: {cause}{step}"
