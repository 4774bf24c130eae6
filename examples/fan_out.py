"""Delegate several tasks at once, and let the remote agent read the files they are about.

    python examples/fan_out.py [FILE ...]

Without arguments: the Markdown files of this repository. Without a configured deployment the embedded server
is started on demand and its demo agent answers: it only digests text. For a real agent set AGENTLIN_BASE_URL
and AGENTLIN_API_KEY.
"""

from __future__ import annotations

import sys
from pathlib import Path

import anyio

from agentlin_bridge import TaskBridge, TaskRequest


async def main(paths: list[Path]) -> int:
    # The remote agent may read these files and no others, whatever path it asks for.
    files = {path.name: path for path in paths}

    def read_file(path: str) -> str:
        """Read one of the files the task names."""
        print(f"the agent reads {path}")
        return files[path].read_text(encoding="utf-8")

    requests = [TaskRequest(f"Digest `{name}`.", client_tools=[read_file]) for name in files]
    async with TaskBridge.from_env() as bridge:
        tasks = await bridge.run_many(requests, max_concurrency=4)
    for name, task in zip(files, tasks, strict=True):
        print(f"\n=== {name}: {task.status}")
        print(task.answer or task.error)
    return sum(task.answer is None for task in tasks)


if __name__ == "__main__":
    repository = Path(__file__).parent.parent
    given = [Path(argument) for argument in sys.argv[1:]] or sorted(repository.glob("*.md"))
    sys.exit(anyio.run(main, given))
