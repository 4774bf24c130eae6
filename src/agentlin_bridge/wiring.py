"""From settings to a ready `TaskBridge`. The only module that knows concrete backends."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Unpack

from agentlin_bridge.delegation.bridge import SettingsFields, TaskBridge
from agentlin_bridge.delegation.client_tools import ToolLike
from agentlin_bridge.extras import require_extra
from agentlin_bridge.remote.backend import TaskBackend
from agentlin_bridge.settings import DEFAULT_BASE_URL, BackendName, Config, Settings, load_settings

DEMO_NOTICE = "demo agent: only digests text, Markdown and CSV; set AGENTLIN_BASE_URL or AGENTLIN_BRIDGE_MODEL"
"""What every host is told while no deployment and no model is configured."""


def build_backend(settings: Settings, config: Config | None = None) -> TaskBackend:
    """The backend the settings choose.

    Args:
        settings: the environment.
        config: the configuration file; read if it is not given.

    Raises:
        ConfigurationError: they are half set, or what the backend needs is not installed.
    """
    from agentlin_bridge.remote.agentlin.backend import AgentlinBackend  # noqa: PLC0415
    from agentlin_bridge.remote.agentlin.dialect import Dialect  # noqa: PLC0415
    from agentlin_bridge.remote.agentlin.endpoint import Address, FixedEndpoint  # noqa: PLC0415

    if settings.backend is BackendName.EMBEDDED:
        from agentlin_bridge.remote.embedded import EmbeddedEndpoint  # noqa: PLC0415

        require_extra("server")
        config = config or settings.load_config()
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
    address = Address(settings.base_url or DEFAULT_BASE_URL, settings.api_key)
    return AgentlinBackend(
        FixedEndpoint(address),
        dialect=None if settings.dialect is None else Dialect(settings.dialect),
        can_hold=settings.dialect == "documented",
        client_id=settings.client_id,
        user_id=settings.user_id or "local",
        server_tools=settings.server_tools == "all",
    )


def build_bridge(
    settings: Settings | None = None,
    *,
    principal: str = "local",
    client_tools: Iterable[ToolLike] = (),
    **given: Unpack[SettingsFields],
) -> TaskBridge:
    """A bridge as the settings describe it; by default those of the environment.

    Args:
        settings: what to build it from.
        principal: whose tasks these are.
        client_tools: bound by name to every task.
        given: goes before what the environment says.

    Raises:
        ConfigurationError: the settings contradict each other or are half set.
    """
    settings = settings or load_settings(**_fields(given))
    config = settings.load_config()
    return TaskBridge(
        build_backend(settings, config),
        ledger=settings.ledger_path,
        principal=principal,
        client_tools=client_tools,
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
