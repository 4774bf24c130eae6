from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def harbour(tmp_path: Path) -> Path:
    path = tmp_path / "harbour.md"
    path.write_text("# Harbour\n\nCranes lift.\n\n## Tides\n\nThe tide turns twice.\n", encoding="utf-8")
    return path


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    path = tmp_path / "prices.csv"
    path.write_text("fish,price\ncod,4\neel,8\n", encoding="utf-8")
    return path
