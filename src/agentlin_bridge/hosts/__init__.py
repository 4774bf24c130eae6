"""Who asked: one room per kind of host, and what hosts of every kind need to show remote text and tool calls."""
