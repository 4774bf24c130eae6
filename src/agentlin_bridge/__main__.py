"""`python -m agentlin_bridge` is `agentlin-bridge`."""

from agentlin_bridge.cli import main

main()
