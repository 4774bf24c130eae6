"""The MCP host side: six tools, two kinds of resource and two prompts over the core, served on stdio."""
