"""Making the chat model a profile names."""

from __future__ import annotations

from langchain.chat_models import init_chat_model
from langchain_core.language_models import BaseChatModel
from pydantic import ValidationError

from agentlin_bridge.errors import ConfigurationError
from agentlin_bridge.server.model_agent.context import UNKNOWN_CONTEXT
from agentlin_bridge.server.model_agent.failures import without_secrets
from agentlin_bridge.server.model_agent.profiles import AgentProfile


def chat_model_of(profile: AgentProfile) -> BaseChatModel:
    """The model, which makes one request per call: repeating is the caller's.

    Raises:
        ConfigurationError: its provider is unknown or not installed, or its options cannot be used.
    """
    options = profile.model_options
    try:
        model: BaseChatModel = init_chat_model(profile.model, **options)
        if "max_retries" in type(model).model_fields and "max_retries" not in options:
            model = init_chat_model(profile.model, **options, max_retries=0)
    except ImportError as error:
        raise _unusable(profile, str(error), "install that package, then start again") from error
    except ValidationError as error:
        # The input is left out: it may be a key.
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        problem = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise _unusable(profile, problem, "correct its model_options") from None
    except Exception as error:
        raise _unusable(
            profile,
            f"{type(error).__name__}: {without_secrets(str(error))}",
            "correct its name or its model_options, and set its provider's key in the environment",
        ) from None
    return model


def context_of(model: BaseChatModel, profile: AgentProfile) -> int:
    """Tokens of context of one call: what the profile says, else what the model's provider tells."""
    told = (model.profile or {}).get("max_input_tokens")
    return profile.limits.max_context_tokens or told or UNKNOWN_CONTEXT


def _unusable(profile: AgentProfile, problem: str, next_step: str) -> ConfigurationError:
    return ConfigurationError(
        f"The model {profile.model!r} of the agent {profile.name!r} cannot be used: {problem.rstrip('. ')}.",
        next_step=next_step,
    )
