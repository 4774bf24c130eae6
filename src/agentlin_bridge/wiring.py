"""From settings to a ready `TaskBridge`. The only module that knows concrete backends."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Unpack

from pydantic import SecretStr

from agentlin_bridge.bridge_tools.configured import configured_tools
from agentlin_bridge.delegation.backends import BACKEND
from agentlin_bridge.delegation.bridge import SettingsFields, TaskBridge
from agentlin_bridge.delegation.client_tools import ToolLike, as_client_tools
from agentlin_bridge.errors import ConfigurationError
from agentlin_bridge.extras import require_extra
from agentlin_bridge.remote.backend import TaskBackend
from agentlin_bridge.settings import DEFAULT_BASE_URL, BackendName, Config, Settings, load_settings

DEMO_NOTICE = "demo agent: only digests text, Markdown and CSV; set AGENTLIN_BASE_URL or AGENTLIN_BRIDGE_MODEL"
"""What every host is told while no deployment and no model is configured."""


def build_backends(settings: Settings, config: Config) -> list[TaskBackend]:
    """The backend the settings choose, and after it those that agent profiles name besides.

    Args:
        settings: the environment.
        config: the configuration file.

    Raises:
        ConfigurationError: they are half set, or what a backend needs is not installed.
    """
    names = [settings.backend]
    for agent, profile in config.agents.items():
        wanted = profile.get(BACKEND, names[0])
        if wanted not in [*BackendName]:
            raise ConfigurationError(
                f"agents.{agent}.backend is {wanted!r}.", next_step=f"use one of: {', '.join(BackendName)}"
            )
        if wanted not in names:
            names.append(settings.checked(BackendName(wanted)))
    return [_BUILDERS[name](settings, config) for name in names]


def _agentlin(settings: Settings, _config: Config) -> TaskBackend:
    from agentlin_bridge.remote.agentlin.backend import AgentlinBackend  # noqa: PLC0415
    from agentlin_bridge.remote.agentlin.dialect import Dialect  # noqa: PLC0415
    from agentlin_bridge.remote.agentlin.endpoint import Address, FixedEndpoint  # noqa: PLC0415

    address = Address(settings.base_url or DEFAULT_BASE_URL, settings.api_key)
    return AgentlinBackend(
        FixedEndpoint(address),
        dialect=None if settings.dialect is None else Dialect(settings.dialect),
        can_hold=settings.dialect == "documented",
        client_id=settings.client_id,
        user_id=settings.user_id or "local",
        server_tools=settings.server_tools == "all",
    )


def _embedded(settings: Settings, config: Config) -> TaskBackend:
    from agentlin_bridge.remote.agentlin.backend import AgentlinBackend  # noqa: PLC0415
    from agentlin_bridge.remote.agentlin.dialect import Dialect  # noqa: PLC0415
    from agentlin_bridge.remote.embedded import EmbeddedEndpoint  # noqa: PLC0415

    require_extra("server")
    model = settings.model or config.default_model
    if model is not None:
        require_extra("models")
    found = settings.config_path
    return AgentlinBackend(
        EmbeddedEndpoint(
            settings.database_path(model),
            # The server runs in another directory.
            environment={"AGENTLIN_BRIDGE_CONFIG": str(found)} if found is not None else {},
        ),
        name="embedded",
        dialect=Dialect.DOCUMENTED,
        can_hold=True,
        notice=DEMO_NOTICE if model is None else "",
    )


def _nla(settings: Settings, config: Config) -> TaskBackend:
    from agentlin_bridge.remote.nla_engine.backend import NlaEngineBackend  # noqa: PLC0415
    from agentlin_bridge.remote.nla_engine.pace import Pace  # noqa: PLC0415
    from agentlin_bridge.remote.nla_engine.secrets import references  # noqa: PLC0415

    profiles = [profile for profile in config.agents.values() if profile.get(BACKEND, settings.backend) == "nla"]
    # Only what the file's author refers to: options may also come from a model.
    names = {name for profile in profiles for name in references(profile)}
    return NlaEngineBackend(
        str(settings.nla_base_url),
        settings.nla_api_key,
        agent_id=settings.nla_agent,
        # Before the core's own deadline, so that the end can name the status.
        pace=Pace(settle=config.limits.settle, deadline=config.limits.round_deadline * 5 / 6),
        secrets={name: SecretStr(value) for name in names if (value := os.environ.get(name))},
    )


_BUILDERS: Mapping[BackendName, Callable[[Settings, Config], TaskBackend]] = {
    BackendName.AGENTLIN: _agentlin,
    BackendName.EMBEDDED: _embedded,
    BackendName.NLA: _nla,
}


def build_bridge(
    settings: Settings | None = None,
    *,
    principal: str = "local",
    client_tools: Iterable[ToolLike] = (),
    has_own_tools: bool = True,
    **given: Unpack[SettingsFields],
) -> TaskBridge:
    """A bridge as the settings describe it; by default those of the environment.

    Args:
        settings: what to build it from.
        principal: whose tasks these are.
        client_tools: bound by name to every task.
        has_own_tools: whether it runs the tools that the configuration has it run; one that only looks need not.
        given: goes before what the environment says.

    Raises:
        ConfigurationError: the settings contradict each other or are half set.
    """
    settings = settings or load_settings(**_fields(given))
    config = settings.load_config()
    default, *others = build_backends(settings, config)
    bound = as_client_tools(client_tools)
    taken = {name: f"[client_tools.{name}], which the host executes" for name in config.client_tools}
    taken |= dict.fromkeys(bound, "those given to the bridge, by --tool or client_tools")
    return TaskBridge(
        default,
        more_backends=others,
        ledger=settings.ledger_path,
        principal=principal,
        client_tools=bound.values(),
        own_tools=configured_tools(config, taken=taken, result_chars=config.limits.result_chars)
        if has_own_tools
        else None,
        agents=config.agents,
        limits=config.limits,
        user_id=settings.user_id,
    )


def _fields(given: SettingsFields) -> dict[str, Any]:
    fields: dict[str, Any] = dict(given)
    if "backend" in fields:
        fields["chosen_backend"] = fields.pop("backend")
    return fields


TaskBridge.register_factory(build_bridge)
