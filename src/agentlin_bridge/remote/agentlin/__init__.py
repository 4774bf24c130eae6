"""The Agentlin task API over HTTP."""
