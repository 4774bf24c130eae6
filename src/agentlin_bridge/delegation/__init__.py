"""The core: delegate a task, follow its rounds, answer its tool calls, keep the ledger."""
