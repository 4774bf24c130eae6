"""The file that tells local clients where the server is and which key opens it."""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from pydantic import SecretStr


def write_state(path: Path, *, base_url: str, api_key: SecretStr | None, version: str) -> None:
    """Put the file in place at once, readable by its owner only."""
    state = {
        "pid": os.getpid(),
        "base_url": base_url,
        "api_key": api_key.get_secret_value() if api_key else None,
        "version": version,
    }
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # created with 0600
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            json.dump(state, file)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def remove_state(path: Path) -> None:
    """Remove the file if this process wrote it; another server may have replaced it."""
    with suppress(OSError, ValueError):
        state = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(state, dict) and state.get("pid") == os.getpid():
            path.unlink()
