"""What a client may send that cannot keep a secret: whoever holds its key may otherwise spend on anything.

A restricted token allows what is listed here and on the token, and nothing else: a field that OpenAI adds tomorrow is
refused until somebody has looked at it.
"""

from collections.abc import Iterable
from typing import Any

from django.conf import settings

from chat.exceptions import NotAllowed
from chat.models import ClientToken

# Fields that cost no more whatever they say, or whose values are checked below.
FREE = frozenset(
    {
        *("conversation_id", "message", "messages", "model", "user", "stream", "stream_options", "n", "metadata"),
        *("temperature", "top_p", "frequency_penalty", "presence_penalty", "stop", "seed", "verbosity"),
        *("max_completion_tokens", "max_tokens", "reasoning_effort", "service_tier", "response_format"),
        *("tools", "tool_choice", "parallel_tool_calls"),
    }
)
TEXT_PARTS = frozenset({"text", "input_text", "output_text", "refusal"})


def models_of(client: ClientToken) -> list[str]:
    """Return the models that a client may name, in the order of OPENAI_MODELS."""
    found: list[str] = settings.OPENAI_MODELS
    lists = [client.allowed_models if client.is_restricted else "", client.plan.allowed_models if client.plan else ""]
    for names in filter(None, map(str.split, lists)):
        found = [name for name in found if name in names]
    return found


def default_model(client: ClientToken) -> str:
    """Return the model of a completion that names none. Raises NotAllowed where the client may use none."""
    if not client.is_restricted and not client.plan:
        return str(settings.OPENAI_MODEL)
    allowed = models_of(client)
    if not allowed:
        raise NotAllowed("This app may use no model of this server; its operator lists some.", param="model")
    return settings.OPENAI_MODEL if settings.OPENAI_MODEL in allowed else allowed[0]


def check_completion(client: ClientToken, asked: dict[str, Any]) -> None:
    """Raise NotAllowed for what the client may not send. `asked` is checked otherwise."""
    if "model" in asked and (client.is_restricted or client.plan) and asked["model"] not in models_of(client):
        names = ", ".join(models_of(client)) or "none"
        raise NotAllowed(f"model: This app may use {names}.", param="model")
    if not client.is_restricted:
        return
    for name in asked:
        if name not in FREE:
            raise NotAllowed(f"{name}: This app may not send it; leave it out.", param=name)
    if "messages" in asked and not client.may_send_history:
        raise NotAllowed("messages: This app may only send conversation_id and message.", param="messages")
    check_messages(client, asked.get("messages", []), "messages")
    for name, allowed in (("reasoning_effort", client.allowed_efforts), ("service_tier", client.allowed_tiers)):
        if name in asked and asked[name] not in allowed.split():
            raise NotAllowed(f"{name}: This app may send {allowed or 'none'}.", param=name)
    check_tools(client, asked.get("tools", []))
    if asked.get("response_format", {}).get("type", "text") != "text" and not client.may_send_formats:
        raise NotAllowed("response_format: This app may only ask for text.", param="response_format")
    for name in ("max_completion_tokens", "max_tokens"):
        if asked.get(name, 0) > client.most_output_tokens:
            raise NotAllowed(f"{name}: This app may ask for {client.most_output_tokens:,} tokens.", param=name)


def bound_reply(client: ClientToken, parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters with the most tokens of a reply, where the client has named none."""
    if not client.is_restricted or {"max_completion_tokens", "max_tokens"} & parameters.keys():
        return parameters
    return {**parameters, "max_completion_tokens": client.most_output_tokens}


def check_messages(client: ClientToken, sent: Iterable[dict[str, Any]], param: str) -> None:
    """Raise NotAllowed for a role, or a content that is no text, that the client may not send."""
    if not client.is_restricted:
        return
    roles = client.allowed_roles.split()
    for index, message in enumerate(sent):
        if message["role"] not in roles:
            at = f"{param}[{index}].role"
            raise NotAllowed(f"{at}: This app may send messages of {', '.join(roles) or 'no role'}.", param=at)
        content = message.get("content")
        parts = content if isinstance(content, list) else []
        if not client.may_send_pictures and any(part.get("type") not in TEXT_PARTS for part in parts):
            at = f"{param}[{index}].content"
            raise NotAllowed(f"{at}: This app may only send text.", param=at)


def check_tools(client: ClientToken, tools: list[dict[str, Any]]) -> None:
    names = client.allowed_tools.split()
    for index, tool in enumerate(tools):
        described = tool.get(str(tool.get("type")))
        if not isinstance(described, dict) or described.get("name") not in names:
            at = f"tools[{index}]"
            raise NotAllowed(f"{at}: This app may use {', '.join(names) or 'no tools'}.", param=at)
