"""The MCP host side: the tools, two kinds of resource and two prompts over the core, served on stdio."""
