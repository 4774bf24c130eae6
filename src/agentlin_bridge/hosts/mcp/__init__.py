"""The MCP host side: tools, two kinds of resource and two prompts over the core, on stdio or over HTTP."""
