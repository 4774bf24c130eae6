"""The agents of a server, picked by what a request says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agentlin_bridge.errors import ConfigurationError
from agentlin_bridge.extras import require_extra
from agentlin_bridge.server.model_agent.overrides import Overrides, read_overrides
from agentlin_bridge.server.model_agent.profiles import AgentProfile, profile_of_model, read_profiles
from agentlin_bridge.server.protocol.refusals import Refusal

if TYPE_CHECKING:
    from agentlin_bridge.server.model_agent.agent import ModelAgent

EXTRA = "models"


def configured_agents(model: str | None, agents: Mapping[str, Any]) -> ModelAgents:
    """The agents of a configuration: a model alone is the default, profiles are picked by their names.

    Without a model the first profile is the default. It imports LangChain and the providers' packages, so it takes
    seconds.

    Args:
        model: `provider:model`.
        agents: profiles by name, as written down.

    Raises:
        ConfigurationError: there is none, or one cannot be used.
    """
    alone = [profile_of_model(model)] if model is not None else []
    return ModelAgents([*alone, *read_profiles(agents)])


class ModelAgents:
    """Agents by name; the first is the default.

    A request picks by `agent_config.agent_id`. Without one, a `client_id` that is an agent's name picks that
    agent, and any other the default.
    """

    def __init__(self, profiles: Sequence[AgentProfile]) -> None:
        """Build them all. It imports LangChain and the providers' packages, so it takes seconds.

        Raises:
            ConfigurationError: a package is missing, a model cannot be set up, two agents share a name.
        """
        if not profiles:
            raise ConfigurationError("There is no agent.", next_step="name a model, or write an agent profile")
        require_extra(EXTRA)
        from agentlin_bridge.server.model_agent.agent import ModelAgent  # noqa: PLC0415  # slow

        self._agents: dict[str, ModelAgent] = {}
        for profile in profiles:
            if profile.name in self._agents:
                raise ConfigurationError(
                    f"Two agents are called {profile.name!r}.", next_step="give each a name of its own"
                )
            self._agents[profile.name] = ModelAgent(profile)

    def __iter__(self) -> Iterator[ModelAgent]:
        """Each of them once."""
        yield from self._agents.values()

    def pick(self, request: Mapping[str, Any]) -> ModelAgent:
        """The agent a create request is for, after a check that it can serve it.

        Raises:
            Refusal: there is none such, or the request asks of it what it cannot do.
        """
        overrides = read_overrides(request)
        agent = self._named(overrides)
        agent.check(request, overrides)
        return agent

    def _named(self, overrides: Overrides) -> ModelAgent:
        if overrides.agent_id:
            if overrides.agent_id not in self._agents:
                raise Refusal(
                    f"There is no agent {overrides.agent_id[:100]!r}; agent_config.agent_id can be one of: "
                    f"{', '.join(self._agents)}",
                    status=422,
                )
            return self._agents[overrides.agent_id]
        default = next(iter(self._agents.values()))
        return self._agents.get(overrides.client_id, default)
