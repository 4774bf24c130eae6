"""An agent that can be overheard."""

from __future__ import annotations

from agentlin_bridge.server.agent import Conversation, Step, Voice, answer

from .agents import Gated


class Talking(Gated):
    """Says something in pieces, once the gate is open."""

    async def step(self, conversation: Conversation, voice: Voice) -> Step:
        await super().step(conversation, voice)
        for piece in ("Hel", "lo!"):
            voice.reasoning(piece)
            voice.text(piece)
        return Step((answer("Hello!"),))
