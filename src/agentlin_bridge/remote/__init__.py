"""Who runs the task: one protocol (`backend`), and the backends that speak it."""
