from __future__ import annotations

from collections.abc import Iterator

import pytest
import stamina

from agentlin_bridge.server.model_agent.listening import ATTEMPTS


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    """Repetitions happen, as often as else, but at once."""
    with stamina.set_testing(True, attempts=ATTEMPTS, cap=True):
        yield
