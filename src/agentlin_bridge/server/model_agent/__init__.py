"""Agents with real chat models: LangChain runs the model, MCP servers provide the server's own tools.

`profiles` and `agents` are light; LangChain and MCP are imported when an agent is built.
"""
