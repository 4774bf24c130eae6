"""The durable record of tasks, rounds, calls and results."""
