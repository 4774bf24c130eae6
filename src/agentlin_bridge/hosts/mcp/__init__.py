"""The MCP host side: six tools over the core, served on stdio."""
