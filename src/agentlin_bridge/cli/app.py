"""The command line: what there is, and how errors are shown.

Every command imports what it needs when it runs, so that `--help` and the MCP server start fast.
"""

from __future__ import annotations

import logging
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from agentlin_bridge.errors import BridgeError

_TELL_URLS = {
    "httpx": logging.WARNING,
    "httpx2": logging.WARNING,
    "httpcore": logging.WARNING,
    "httpcore2": logging.WARNING,
    "mcp": logging.WARNING,
    "mcp.client.streamable_http": logging.ERROR,
}
"""Loggers that would tell URLs, of which a query may hold a key, or ids of sessions; and from where on they do not."""

app = typer.Typer(
    name="agentlin-bridge",
    help="Delegate subtasks to Agentlin agents, and answer the tool calls they send back.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command line; errors of ours end it with status 2 and one clear message on stderr."""
    try:
        app()
    except BridgeError as error:
        sys.stderr.write(f"agentlin-bridge: {error}\n")
        sys.exit(2)


@app.callback(invoke_without_command=True)
def root(
    show_version: Annotated[bool, typer.Option("--version", help="Show the version and leave.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens, to stderr.")] = False,
) -> None:
    """Logging is set up here: everything the program logs goes to stderr."""
    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(stream=sys.stderr, level=level, format="%(levelname)s %(name)s: %(message)s")
    for name, discreet in _TELL_URLS.items():
        logging.getLogger(name).setLevel(discreet)
    if show_version:
        typer.echo(version("agentlin-bridge"))
        raise typer.Exit


@app.command()
def mcp(
    tool: Annotated[
        list[str] | None,
        typer.Option(help="A typed function the bridge itself runs for remote agents, as module:function. Repeatable."),
    ] = None,
    approval: Annotated[
        str, typer.Option(help="Whether a person has to approve each run of those tools: always or never.")
    ] = "always",
    transport: Annotated[str, typer.Option(help="stdio, or http for streamable HTTP.")] = "stdio",
    host: Annotated[str, typer.Option(help="With http: the address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="With http: the port to listen on; 0 takes a free one.")] = 8766,
    path: Annotated[str, typer.Option(help="With http: where clients find the server.")] = "/mcp",
) -> None:
    """Serve the MCP tools over stdio, for a host's configuration (see `config`), or over HTTP.

    Over HTTP, AGENTLIN_BRIDGE_MCP_TOKENS holds a bearer token for each principal; without any the server listens on
    loopback only, and everybody is the principal `local`.
    """
    from agentlin_bridge.extras import require_extra

    require_extra("mcp")
    from agentlin_bridge.cli.mcp import serve_mcp

    serve_mcp(tool or [], approval, transport=transport, host=host, port=port, path=path)


@app.command()
def run(
    instructions: Annotated[str, typer.Argument(help="What the remote agent shall do.")],
    tool: Annotated[
        list[str] | None, typer.Option(help="A typed function it may call, as module:function. Repeatable.")
    ] = None,
    agent: Annotated[str | None, typer.Option(help="An agent profile from the configuration file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole task as JSON.")] = False,
    timeout: Annotated[float | None, typer.Option(help="Seconds to wait; the task goes on after that.")] = None,
) -> None:
    """Delegate one task and print its answer."""
    from agentlin_bridge.cli.run import run_task

    sys.exit(run_task(instructions, tool or [], agent=agent, as_json=as_json, timeout=timeout))


@app.command()
def agents(
    query: Annotated[str, typer.Argument(help="What the remotes search for; without it all are listed.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List agent profiles, and the agents that the remotes say they have."""
    from agentlin_bridge.cli.agents import list_agents

    sys.exit(list_agents(query, as_json=as_json))


@app.command()
def demo(
    files: Annotated[
        list[Path] | None, typer.Argument(help="Text, Markdown or CSV files. Default: README.md here.")
    ] = None,
) -> None:
    """Watch a host delegate a report on files over real MCP stdio and answer the agent's tool calls."""
    from agentlin_bridge.extras import require_extra

    require_extra("mcp")
    require_extra("server")
    from agentlin_bridge.cli.demo import run_demo

    sys.exit(run_demo(files or [Path("README.md")]))


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8765,
    database: Annotated[
        str | None, typer.Option(help="Path of the SQLite file that keeps the tasks, or a postgresql:// URL.")
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes that share the port and the work; more than one needs PostgreSQL.")
    ] = 1,
    on_demand: Annotated[bool, typer.Option("--on-demand", hidden=True)] = False,
    idle_exit: Annotated[float | None, typer.Option(help="Leave after so many idle seconds.")] = None,
) -> None:
    """Serve the Agentlin task API with the embedded server.

    AGENTLIN_API_KEY is the key that opens all tasks, AGENTLIN_BRIDGE_SERVER_KEYS holds one for each user; without any
    the server listens on loopback only.
    """
    from agentlin_bridge.extras import require_extra

    require_extra("server")
    from agentlin_bridge.cli.serve import ServeArguments, run_server

    run_server(ServeArguments(host, port, database, workers, on_demand, idle_exit))


tasks = typer.Typer(help="Look at delegated tasks.", no_args_is_help=True)
app.add_typer(tasks, name="tasks")


@tasks.command("list")
def tasks_list(
    status: Annotated[list[str] | None, typer.Option(help="Only tasks with this status. Repeatable.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List tasks, newest first."""
    from agentlin_bridge.cli.tasks import list_tasks

    list_tasks(status, limit, as_json=as_json)


@tasks.command("show")
def tasks_show(
    task_id: Annotated[str, typer.Argument(help="The task's id.")],
    as_json: Annotated[bool, typer.Option("--json", help="The whole task as JSON.")] = False,
) -> None:
    """Show one task."""
    from agentlin_bridge.cli.tasks import show_task

    show_task(task_id, as_json=as_json)


@app.command()
def config(
    host: Annotated[str, typer.Argument(help="claude-desktop, claude-code, cursor or vscode.")],
) -> None:
    """Print the entry for a host's configuration file, with this interpreter's path."""
    from agentlin_bridge.cli.host_config import print_entry

    print_entry(host)
