"""What an upstream does not take, learnt from its refusals: the request is sent again as that upstream takes it.

A refused request costs nothing, so the client hears nothing of it. What an upstream never takes is remembered by this
process, for each upstream and model; what it did not take of one request is not.
"""

import json
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings

from chat.exceptions import ApiError, UpstreamError
from chat.upstream import rewrites
from chat.upstream.errors import Problem, texts_of
from chat.upstream.replies import Call

Body = dict[str, Any]

# The reply's bound has two names: the older one is unknown to OpenAI's newer models, the newer one to other servers.
BOUNDS = {"max_completion_tokens": "max_tokens", "max_tokens": "max_completion_tokens"}
OURS = ("stream_options", "prompt_cache_key", "safety_identifier", "reasoning_effort", *BOUNDS)
# How providers say that they do not know a field, rather than that its value is wrong.
UNKNOWN = (
    r"(?:unknown|unrecogni[sz]ed|unsupported|not supported|not permitted|extra_forbidden|unexpected|not allowed"
    r"|cannot find field)"
)
# How they refuse a field without its name.
NAMELESS = re.compile(r"extra inputs are not permitted|unknown (?:field|parameter)s?\b(?!\W*[`'\"])|\b1210\b", re.I)
# What in a refusal is about no field: the names that there are, and the request as it was sent.
NO_SUBJECT = re.compile(r"expected one of.*|\"(?:input|body|url|ctx)\":.*", re.I | re.S)
# How they name the highest value of a bound.
AT_MOST = re.compile(r"(?:at most|less than or equal to|<=|maximum (?:value )?(?:of|is|allowed))\D{0,20}(\d+)", re.I)
# A bound is halved until the upstream takes it, and never below this.
LEAST_BOUND = 64
# Forms of messages that not every provider takes: how refusals name them, and what is sent instead.
REWRITES: dict[str, tuple[re.Pattern[str], Callable[[list[Body]], list[Body]]]] = {
    "call ids": (re.compile(r"tool[_ ]call[_ ]?id|tool_calls\W+\d+\W+id\b|length of 9", re.I), rewrites.short_call_ids),
    "developer": (re.compile(r"\bdeveloper\b", re.I), rewrites.developer_as_system),
    "names": (re.compile(r"\bname\b.*" + UNKNOWN + "|" + UNKNOWN + r".*\bname\b", re.I | re.S), rewrites.without_names),
    "systems": (re.compile(r"system message (?:must|should) be|multiple system", re.I), rewrites.one_system),
}


@dataclass
class Known:
    """What is known of one model of one upstream."""

    refused: set[str] = field(default_factory=set)  # names of OURS, and of REWRITES
    most_reply_tokens: int | None = None


_known: dict[tuple[str, str], Known] = {}


class Request:
    """One request to the upstream, as it is sent again after each refusal that teaches something."""

    def __init__(self, call: Call, body: Body) -> None:
        self.call = call
        self.body = body
        self._known = _known.setdefault((settings.OPENAI_BASE_URL, body["model"]), Known())
        # For this request alone: what is left out, and the highest bound of the reply.
        self._once: set[str] = set()
        self._most: int | None = None

    def sent(self) -> Body:
        """Return the body as its upstream takes it."""
        left_out = self._known.refused | self._once
        most = min(filter(None, (self._known.most_reply_tokens, self._most)), default=None)
        if not left_out and most is None:
            return self.body
        sent = {name: value for name, value in self.body.items() if name not in left_out}
        for name, other in BOUNDS.items():
            if name in self.body and name in left_out:
                if other not in left_out:
                    sent[other] = self.body[name]
                elif name in self.call.asked:
                    sent[name] = self.body[name]  # Neither is known: the client is told of its own.
            if name in sent and most and not self._asked_for_bound():
                sent[name] = min(sent[name], most)
        for name, (_, rewrite) in REWRITES.items():
            if name in left_out:
                sent["messages"] = rewrite(sent["messages"])
        if "media" in self._once:
            sent["messages"] = rewrites.without_old_media(sent["messages"], self.call.first_new)
        return sent

    def learn(self, sent: Body, problem: Problem, answer: str) -> bool:
        """Learn from a refusal what the upstream does not take. False where that is the client's own to change."""
        if self.sent() != sent:
            return True  # Another request has learnt it just now.
        for text in texts_of(self.call.body["messages"]):
            answer = answer.replace(text, "").replace(json.dumps(text)[1:-1], "")
        answer = NO_SUBJECT.sub("", answer)
        name = next((name for name in OURS if name in sent and self._is_about(name, problem, answer)), None)
        if name:
            has_learnt = self._leave_out(name, sent, answer)
        else:
            has_learnt = self._rewrite(sent, answer) or self._go_without(sent, answer)
        # The same request again would get the same refusal, for ever.
        return has_learnt and self.sent() != sent

    def _rewrite(self, sent: Body, answer: str) -> bool:
        for name, (pattern, rewrite) in REWRITES.items():
            is_new = name not in self._known.refused and bool(pattern.search(answer))
            if is_new and rewrite(sent["messages"]) != sent["messages"]:
                self._known.refused.add(name)
                return True
        return False

    def _go_without(self, sent: Body, answer: str) -> bool:
        """Try once more without what may be meant where a refusal names nothing."""
        ours = {name for name in OURS if name in sent and is_ours(name, self.call.asked) and name not in BOUNDS}
        if ours and NAMELESS.search(answer):
            self._once |= ours
            return True
        messages, first_new = sent["messages"], self.call.first_new
        if "media" in self._once or rewrites.without_old_media(messages, first_new) == messages:
            return False
        # A picture that was taken once may be gone, or too large beside others, and must not end the conversation.
        self._once.add("media")
        return True

    def _asked_for_bound(self) -> bool:
        return any(name in self.call.asked for name in BOUNDS)

    def _is_about(self, name: str, problem: Problem, answer: str) -> bool:
        """Tell whether a refusal is about the field, by its `param` or else by words that stand beside its name."""
        if problem.param:
            return re.split(r"[.\[]", problem.param)[0] == name
        is_value = name in BOUNDS and re.search(
            rf"\b{name}\b[^.]{{0,40}}(?:too large|at most|less than|maximum)", answer
        )
        near = rf"{UNKNOWN}[^.;]{{0,80}}\b{name}\b|\b{name}\b[^.;]{{0,80}}{UNKNOWN}"
        return bool(is_value or re.search(near, answer, re.I))

    def _leave_out(self, name: str, sent: Body, answer: str) -> bool:
        """Leave the field out, for good where the upstream does not know it. False where the client asked for it."""
        is_unknown = bool(re.search(UNKNOWN, answer, re.I))
        if name in BOUNDS:
            return self._unbind(name, sent, answer) if not is_unknown or "prediction" in sent else self._rename(name)
        if name in self.call.asked:
            return False
        learnt = self._known.refused if is_unknown and not self._is_quoted(name) else self._once
        learnt.add(name)
        return True

    def _rename(self, bound: str) -> bool:
        """Send a bound by its other name from now on. Where neither is known, a bound of ours is left out."""
        if BOUNDS[bound] not in self._known.refused:
            (self._once if self._is_quoted(bound) else self._known.refused).add(bound)
            return True
        if self._asked_for_bound():
            self._known.refused.discard(BOUNDS[bound])
            return False
        self._known.refused.add(bound)
        return True

    def _unbind(self, bound: str, sent: Body, answer: str) -> bool:
        """Lower a bound of ours that is too high: to what the upstream says, else to half. A client's is its own."""
        if self._asked_for_bound():
            return False
        if "prediction" in sent:
            self._once |= BOUNDS.keys()  # OpenAI takes no bound beside it.
            return True
        found = AT_MOST.search(answer)
        if found and 0 < int(found[1]) < sent[bound] and "context" not in answer:
            self._known.most_reply_tokens = int(found[1])
            return True
        self._most = sent[bound] // 2
        return self._most >= LEAST_BOUND

    def _is_quoted(self, name: str) -> bool:
        """Tell whether the client itself has written the name somewhere, so that the refusal may only quote it."""
        own = [self.body["messages"], *(self.body[asked] for asked in self.call.asked if asked in self.body)]
        return name in json.dumps(own)


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
        index = int(found[1]) - call.first_new if found else -1
        error.param = f"messages[{index}]{found[2]}" if found and index >= 0 else None
    elif is_ours(root, call.asked):
        return UpstreamError(
            f"The model's provider refused {root}, which the server added; the operator must look into it.",
            should_retry=False,
        )
    return error


def is_ours(name: str, asked: Collection[str]) -> bool:
    return name in OURS and name not in asked and BOUNDS.get(name) not in asked
