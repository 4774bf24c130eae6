"""The backends of one bridge: the one that tasks go to by default, and those that agent profiles name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict
from types import TracebackType
from typing import Any, Protocol, Self

from agentlin_bridge.errors import ConfigurationError, InvalidRequestError
from agentlin_bridge.remote.backend import Capabilities, TaskBackend

BACKEND = "backend"
"""What in an agent profile names its backend; the rest of it are options of that backend."""


class Placed(Protocol):
    """Something that was given to a backend."""

    @property
    def backend(self) -> str:
        """The backend's name."""
        ...

    @property
    def place(self) -> str:
        """Where it runs tasks."""
        ...


class Backends:
    """An async context manager: all of them are open while it is.

    Args:
        default: where tasks go that name no agent, or one whose profile names no backend.
        others: what profiles can name besides.
        agents: agent profiles, by name.

    Raises:
        ConfigurationError: two have the same name, or a profile names one that is not there.
    """

    def __init__(
        self, default: TaskBackend, others: Sequence[TaskBackend], agents: Mapping[str, Mapping[str, Any]]
    ) -> None:
        self.default = default
        self._named = {backend.name: backend for backend in (*others, default)}
        self._agents = agents
        self._stack = AsyncExitStack()
        if len(self._named) != 1 + len(others):
            names = ", ".join(backend.name for backend in (default, *others))
            raise ConfigurationError(
                f"Two backends of one bridge have the same name: {names}.",
                next_step="give the bridge one of each kind",
            )
        for name, profile in agents.items():
            if (wanted := profile.get(BACKEND, default.name)) not in self._named:
                raise ConfigurationError(
                    f"The agent profile {name!r} names the backend {wanted!r}; there are: {', '.join(self._named)}.",
                    next_step="correct its `backend`, or configure that backend",
                )

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            for backend in self:
                await stack.enter_async_context(backend)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, traceback)

    def __iter__(self) -> Iterator[TaskBackend]:
        """The default first."""
        yield self.default
        yield from (backend for backend in self._named.values() if backend is not self.default)

    @property
    def capabilities(self) -> Capabilities:
        """What at least one of them can do."""
        every = [asdict(backend.capabilities) for backend in self]
        return Capabilities(**{name: any(one[name] for one in every) for name in every[0]})

    def having(self, given: Placed) -> TaskBackend | None:
        """The backend that something was given to, if it is one of these."""
        backend = self._named.get(given.backend)
        return backend if backend is not None and backend.place == given.place else None

    def chosen(self, agent: str | None) -> tuple[TaskBackend, dict[str, Any]]:
        """The backend for an agent profile, and the options of the profile.

        Raises:
            InvalidRequestError: there is no such profile.
        """
        if agent is None:
            return self.default, {}
        if agent not in self._agents:
            known = ", ".join(sorted(self._agents)) or "none are configured"
            raise InvalidRequestError(
                f"There is no agent profile {agent!r} (known: {known}).",
                next_step="leave `agent` out, or add the profile to the configuration file under [agents]",
            )
        options = dict(self._agents[agent])
        return self._named[options.pop(BACKEND, self.default.name)], options
