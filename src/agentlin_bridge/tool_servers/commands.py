"""Running a command as a tool: JSON on its stdin, the result on its stdout, no shell."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import anyio
from anyio.abc import ByteReceiveStream, Process

from agentlin_bridge.task import TextContentItem, ToolResult
from agentlin_bridge.tool_servers.discretion import Discretion

GRACE = 0.4
"""Seconds a command has to end by itself when it is stopped."""

_INHERITED = (
    ("APPDATA", "LOCALAPPDATA", "PATH", "PATHEXT", "SYSTEMDRIVE", "SYSTEMROOT", "TEMP", "USERNAME", "USERPROFILE")
    if sys.platform == "win32"
    else ("HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER")
)
_STDERR_BYTES = 2_000
_CHUNK = 65_536


@dataclass(frozen=True)
class Command:
    """A command that is ready to run.

    Attributes:
        argv: the program and its arguments.
        env: added to a small safe environment.
        timeout: seconds.
        result_chars: characters of stdout that are read.
        discretion: keeps secrets out of errors.
    """

    name: str
    argv: list[str] = field(repr=False)
    env: Mapping[str, str] = field(repr=False)
    cwd: str | None
    timeout: float
    result_chars: int
    discretion: Discretion = field(repr=False)

    async def run(self, arguments: str) -> ToolResult:
        """Run it with arguments as JSON, and leave nothing of it running. Whatever goes wrong is a result."""
        try:
            process = await anyio.open_process(
                self.argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=self.cwd,
                env={**_safe_environment(), **self.env},
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            return ToolResult.error(
                f"{self.name} cannot be started: {self.discretion(_reason(error))}. It was not run."
            )
        output, errors = _Kept(self.result_chars * 4), _Kept(_STDERR_BYTES + self.discretion.longest, newest=True)
        try:
            with anyio.move_on_after(self.timeout) as patience:
                await _talk(process, arguments.encode(errors="replace"), output, errors)
                await process.wait()
        finally:
            await _end(process)
        if patience.cancelled_caught:
            return ToolResult.error(
                f"{self.name} did not end within {self.timeout:g} seconds and was stopped. "
                "It may or may not have had an effect."
            )
        return self._result(process.returncode or 0, output, errors)

    def _result(self, status: int, output: _Kept, errors: _Kept) -> ToolResult:
        text = output.text[: self.result_chars]
        if output.lost or len(text) < len(output.text):
            text += f"\n[cut: the output of {self.name} has more than {self.result_chars} characters]"
        if status == 0:
            return ToolResult(content=[TextContentItem(text=text)])
        how = f"ended with status {status}" if status > 0 else f"was ended by signal {-status}"
        said = self.discretion.masked(errors.text)
        if errors.lost:
            # It may begin with the rest of a secret, which cannot be known as one.
            said = said[self.discretion.longest :]
        said = said.strip()
        return ToolResult.error("\n".join(part for part in (f"{self.name} {how}.", said, text) if part))


class _Kept:
    """So many bytes of a stream."""

    def __init__(self, limit: int, *, newest: bool = False) -> None:
        self._limit = limit
        self._newest = newest
        self._bytes = bytearray()
        self.lost = False

    def add(self, chunk: bytes) -> None:
        self._bytes += chunk
        if len(self._bytes) > self._limit:
            self.lost = True
            if self._newest:
                del self._bytes[: -self._limit]
            else:
                del self._bytes[self._limit :]

    @property
    def text(self) -> str:
        return self._bytes.decode(errors="replace")


async def _talk(process: Process, told: bytes, output: _Kept, errors: _Kept) -> None:
    assert process.stdin is not None  # noqa: S101  (opened with pipes)
    assert process.stdout is not None  # noqa: S101
    assert process.stderr is not None  # noqa: S101
    async with anyio.create_task_group() as group:
        group.start_soon(_listen, process.stdout, output)
        group.start_soon(_listen, process.stderr, errors)
        # It need not care for its arguments.
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            await process.stdin.send(told)
        with suppress(anyio.BrokenResourceError, OSError):
            await process.stdin.aclose()


async def _listen(stream: ByteReceiveStream, kept: _Kept) -> None:
    with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
        while True:
            kept.add(await stream.receive(_CHUNK))


async def _end(process: Process) -> None:
    """End it with all it has started; whoever is cancelled waits that long."""
    with anyio.CancelScope(shield=True):
        if process.returncode is None:
            _signal(process, signal.SIGTERM)
            with anyio.move_on_after(GRACE):
                await process.wait()
        # Its children may have outlived it.
        _signal(process, signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)
        await process.aclose()


def _signal(process: Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        if sys.platform == "win32":
            process.terminate()
        else:
            os.killpg(process.pid, number)


def _safe_environment() -> dict[str, str]:
    return {name: os.environ[name] for name in _INHERITED if name in os.environ}


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
