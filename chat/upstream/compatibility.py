"""Fields that llmapi adds to a request and that not every upstream knows: learnt from its refusals, then left out.

A refused request costs nothing, so it is sent again without the field, and this process remembers for which model of
which upstream. The client hears nothing of it.
"""

import re
from collections.abc import Collection
from typing import Any

from django.conf import settings

from chat.exceptions import ApiError, UpstreamError
from chat.upstream.replies import Call

# The reply's bound has two names: the older one is unknown to OpenAI's newer models, the newer one to other servers.
BOUNDS = {"max_completion_tokens": "max_tokens", "max_tokens": "max_completion_tokens"}
OURS = ("stream_options", "prompt_cache_key", "safety_identifier", "reasoning_effort", *BOUNDS)
# How providers say that they do not know a field, rather than that its value is wrong.
UNKNOWN = re.compile(
    r"unknown|unrecogni[sz]ed|unsupported|not supported|not permitted|extra_forbidden|unexpected|not allowed"
    r"|cannot find field|additional propert",
    re.I,
)

# Refused fields, by upstream and model.
_refused: dict[tuple[str, str], set[str]] = {}


def adapt(body: dict[str, Any]) -> dict[str, Any]:
    """Return the body as its upstream takes it: a bound under the name that it knows, refused fields left out."""
    refused = _refused.get((settings.OPENAI_BASE_URL, body["model"]))
    if not refused:
        return body
    sent = {name: value for name, value in body.items() if name not in refused}
    for name, other in BOUNDS.items():
        if name in body and name in refused and other not in refused:
            sent[other] = body[name]
    return sent


def learn(sent: dict[str, Any], answer: str, *, asked: Collection[str]) -> bool:
    """Learn from a refusal which field the upstream does not take. False where it is about something else.

    A field that the client has `asked` for stays, but for a bound of the reply that has another name here.
    """
    refused = _refused.setdefault((settings.OPENAI_BASE_URL, sent["model"]), set())
    for name in OURS:
        if name not in sent or name in refused or not re.search(rf"\b{name}\b", answer):
            continue
        is_asked = name in asked or BOUNDS.get(name) in asked
        can_be_renamed = name in BOUNDS and BOUNDS[name] not in refused and UNKNOWN.search(answer)
        if not is_asked or can_be_renamed:
            refused.add(name)
            return True
    return False


def blame(error: ApiError, call: Call) -> ApiError:
    """Return the error of a refused request as the client may be told it.

    The client is told of its own fields, by its own names for them. A request that is refused for a field which
    it did not send is our trouble.
    """
    if not error.param or error.status_code != 400:
        return error
    root = re.split(r"[.\[]", error.param)[0]
    if root == "messages":
        found = re.match(r"messages[.\[]*(\d+)\]?(.*)", error.param)
        index = int(found[1]) - call.first_new if found else 0
        error.param = f"messages[{index}]{found[2]}" if found and index >= 0 else None
    elif root in OURS and root not in call.asked and BOUNDS.get(root) not in call.asked:
        return UpstreamError(
            f"The model's provider refused {root}, which the server added; the operator must look into it.",
            should_retry=False,
        )
    return error
