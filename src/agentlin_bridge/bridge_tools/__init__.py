"""The tools that the configuration has the bridge itself run: those of MCP servers, and commands."""
