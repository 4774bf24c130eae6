"""Every error a user of the bridge can meet, at a glance.

BridgeError                  code, message, next_step
├── ConfigurationError       the settings contradict each other or are half set
│   └── MissingExtraError    an optional part is not installed, or too old
├── InvalidRequestError      the caller's arguments cannot be used; nothing was changed
│   ├── RequestConflict      a request_id came again with other arguments
│   ├── UnknownCall          a result names a call the task does not wait for
│   ├── AlreadyAnswered      a different result came for a call that has one
│   └── TaskNotFound         no such task for this principal
├── UnsupportedError         the backend cannot do this
├── LedgerError              the ledger cannot be opened, or was written by a newer version
└── RemoteError              the remote answered with an error, or not at all
    ├── RemoteUnavailable    nothing was sent: safe to try again
    ├── ReplyLost            the request may have arrived: look it up, never resend blindly
    ├── RemoteRefused        authentication or permission
    ├── RemoteNotFound       the remote has no such task
    └── RemoteProtocolError  the answer is not what the API promises
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
TASK_NOT_FOUND = -32001
TASK_NOT_CANCELABLE = -32002
TASK_NOT_PAUSABLE = -32009
SERVER_ERROR = -32000


class BridgeError(Exception):
    """Base of all errors of this package.

    Attributes:
        message: what went wrong, and why.
        next_step: what the reader can do about it; may be empty.
        code: a JSON-RPC error code, so that every host reports the same number.
    """

    code: int = INTERNAL_ERROR

    def __init__(self, message: str, *, next_step: str = "") -> None:
        self.message = message
        self.next_step = next_step
        super().__init__(message)

    def __str__(self) -> str:
        return f"{self.message} Next: {self.next_step}" if self.next_step else self.message


class ConfigurationError(BridgeError):
    """The settings contradict each other or are half set."""


class MissingExtraError(ConfigurationError, ImportError):
    """An optional part of the package is not installed, or an installed library is too old for it."""


class InvalidRequestError(BridgeError):
    """The caller's arguments cannot be used. Nothing was changed."""

    code = INVALID_PARAMS


class RequestConflict(InvalidRequestError):
    """The same request_id came with different arguments.

    Attributes:
        task_id: the task that the first arguments created.
    """

    task_id: str = ""


class UnknownCall(InvalidRequestError):
    """A result names a call_id that the task is not waiting for."""


class AlreadyAnswered(InvalidRequestError):
    """A call that already has a result was given a different one."""


class TaskNotFound(InvalidRequestError):
    """No task with this id exists for this principal."""

    code = TASK_NOT_FOUND


class UnsupportedError(BridgeError):
    """The configured backend cannot do what was asked."""


class LedgerError(BridgeError):
    """The ledger cannot be opened, or was written by a newer version of this package."""


class RemoteError(BridgeError):
    """The remote answered with an error, or did not answer.

    Attributes:
        remote_code: the remote's own JSON-RPC code, if it sent one.
        status: the HTTP status, if there was an answer.
        request_id: the remote's request id, for its operator's logs.
        data: what the remote attached to its error, unchecked.
    """

    code = SERVER_ERROR

    def __init__(
        self,
        message: str,
        *,
        next_step: str = "",
        remote_code: int | None = None,
        status: int | None = None,
        request_id: str | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, next_step=next_step)
        self.remote_code = remote_code
        self.status = status
        self.request_id = request_id
        self.data = data
        if remote_code is not None:
            self.code = remote_code


class RemoteUnavailable(RemoteError):
    """The remote could not be reached. Nothing was sent, so trying again is safe."""


class ReplyLost(RemoteError):
    """The request may have arrived but its answer did not. Look it up by id; never resend blindly.

    Attributes:
        remote_id: the id the remote gave the task, if it had told it before it was lost.
    """

    remote_id: str | None = None


class RemoteRefused(RemoteError):
    """The remote refused our credentials or our right to this task."""


class RemoteNotFound(RemoteError):
    """The remote knows no task with this id."""


class RemoteProtocolError(RemoteError):
    """The remote's answer is not what its API promises."""
