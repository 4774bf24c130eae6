"""Who asked: one room per kind of host."""
