"""What media types are called by those who call them otherwise."""

from __future__ import annotations

_FORMATS = {"mpeg": "mp3", "x-wav": "wav", "wave": "wav", "vnd.wave": "wav"}
_SUBTYPES = {"mp3": "mpeg"}


def audio_format(subtype: str) -> str:
    """The format of audio, as Agentlin calls it, given what follows `audio/` in its media type."""
    return _FORMATS.get(subtype, subtype)


def audio_type(format_: str) -> str:
    """The media type of audio of a format."""
    return f"audio/{_SUBTYPES.get(format_, format_)}"
