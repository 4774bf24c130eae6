"""Fixtures for tests of tools the bridge runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tool_servers.setting import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)
