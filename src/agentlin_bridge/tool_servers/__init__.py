"""Tools that come from elsewhere: MCP servers and commands. It knows neither the bridge nor the embedded server."""
