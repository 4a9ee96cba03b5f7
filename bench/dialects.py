"""How providers that speak OpenAI's protocol really speak it: what they stream, answer and refuse.

Each dialect is as public reports describe it (docs/providers.md has them). In a test: `upstream.dialect = GROQ`.
"""

import json
from typing import Any

from bench.openai_rules import PARAMETERS, refusal_of

Json = dict[str, Any]
STRICT_FIELDS = {"role", "content", "name", "tool_calls", "tool_call_id"}


class Dialect:
    """OpenAI's own. A completion is given as OpenAI's object, and deltas as OpenAI's; others alter them."""

    name = "openai"
    has_done = True
    says_usage = "at the end"  # "with each chunk", "never" in a stream

    def refuse(self, body: Json) -> tuple[int, Any] | None:
        """Return the status and the body of a refusal; None where the request is taken."""
        found = refusal_of(body)
        return found and (400, {"error": {"type": "invalid_request_error", **found._asdict()}})

    def error(self, status: int, error: Json) -> Any:
        """Return the body of a failure that a test asks for."""
        return {"error": {"type": "server_error", **error}}

    def whole(self, completion: Json) -> Json:
        return completion

    def head(self, completion: Json) -> list[bytes]:
        """Return what is sent before the first delta."""
        return []

    def delta(self, completion: Json, delta: Json, finish_reason: str | None) -> list[bytes]:
        """Return the events of one delta."""
        return [event(self.chunk(completion, delta, finish_reason))]

    def chunk(self, completion: Json, delta: Json, finish_reason: str | None) -> Json:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {**chunk_head(completion), "choices": [choice], "usage": None, "obfuscation": "x7Q2pL"}

    def tail(self, completion: Json, *, include_usage: bool) -> list[bytes]:
        """Return what is sent after the last delta, before [DONE]."""
        if not include_usage or "usage" not in completion:
            return []
        return [event({**chunk_head(completion), "choices": [], "usage": completion["usage"], "obfuscation": "a"})]


def event(data: Any) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def chunk_head(completion: Json) -> Json:
    names = ("id", "created", "model", "service_tier", "system_fingerprint")
    return {"object": "chat.completion.chunk", **{name: completion.get(name) for name in names}}


def bare(completion: Json) -> Json:
    """Leave out of a completion what only OpenAI sends."""
    kept = {name: value for name, value in completion.items() if name not in {"service_tier", "system_fingerprint"}}
    choice = completion["choices"][0]
    message = {name: value for name, value in choice["message"].items() if name not in {"annotations", "refusal"}}
    kept["choices"] = [{**choice, "message": message}]
    if "usage" in completion:
        kept["usage"] = plain_usage(completion["usage"])
    return kept


def plain_usage(usage: Json) -> Json:
    return {name: usage[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")}


def unknown_fields(body: Json, refused: set[str]) -> list[str]:
    return [name for name in body if name in refused]


def odd_message_fields(body: Json, known: set[str]) -> list[str]:
    """Return the paths of message fields outside of `known`, and of lists of calls that are empty or null."""
    found = []
    for index, message in enumerate(body["messages"]):
        found += [f"messages.{index}.{name}" for name in message if name not in known]
        if "tool_calls" in message and not message["tool_calls"]:
            found.append(f"messages.{index}.tool_calls")
    return found


OPENAI_ONLY = {"prompt_cache_key", "safety_identifier", "store", "metadata", "moderation", "prediction"}


class Azure(Dialect):
    name = "azure"

    def head(self, completion: Json) -> list[bytes]:
        filters = [{"prompt_index": 0, "content_filter_results": {"hate": {"filtered": False, "severity": "safe"}}}]
        head = {"choices": [], "created": 0, "id": "", "model": "", "object": "", "prompt_filter_results": filters}
        return [event(head)]

    def chunk(self, completion: Json, delta: Json, finish_reason: str | None) -> Json:
        chunk = super().chunk(completion, delta, finish_reason)
        chunk["choices"][0]["content_filter_results"] = {}
        return chunk


class Gemini(Dialect):
    """No index in calls, `stop` after calls, usage in each chunk, thoughts in the total alone, errors in a list."""

    name = "gemini"
    says_usage = "with each chunk"

    def refuse(self, body: Json) -> tuple[int, Any] | None:
        unknown = unknown_fields(body, OPENAI_ONLY) + odd_message_fields(body, STRICT_FIELDS)
        if unknown:
            words = f'Invalid JSON payload received. Unknown name "{unknown[0]}": Cannot find field.'
            return 400, [{"error": {"code": 400, "message": words, "status": "INVALID_ARGUMENT"}}]
        return super().refuse(body)

    def error(self, status: int, error: Json) -> Any:
        words = {429: "RESOURCE_EXHAUSTED", 503: "UNAVAILABLE", 400: "INVALID_ARGUMENT"}.get(status, "INTERNAL")
        return [{"error": {"code": status, "message": error["message"], "status": words}}]

    def whole(self, completion: Json) -> Json:
        whole = bare(completion)
        whole["choices"][0]["finish_reason"] = "stop"
        if "usage" in whole:
            whole["usage"] = self.usage(whole["usage"])
        return whole

    def usage(self, usage: Json) -> Json:
        return {**usage, "completion_tokens": usage["completion_tokens"] - 1, "total_tokens": usage["total_tokens"]}

    def delta(self, completion: Json, delta: Json, finish_reason: str | None) -> list[bytes]:
        calls = delta.get("tool_calls")
        if calls and "id" not in calls[0]:
            return []  # a call comes whole, with its head
        if calls:
            whole = completion["choices"][0]["message"]["tool_calls"][calls[0]["index"]]
            delta = {"role": "assistant", "tool_calls": [{**whole, "extra_content": {"google": {}}}]}
        chunk = bare_chunk(completion, {"role": "assistant", **delta}, "stop" if finish_reason else None)
        if "usage" in completion:
            chunk["usage"] = self.usage(plain_usage(completion["usage"]))
        return [event(chunk)]

    def tail(self, completion: Json, *, include_usage: bool) -> list[bytes]:
        return []


def bare_chunk(completion: Json, delta: Json, finish_reason: str | None) -> Json:
    head = {name: completion[name] for name in ("id", "created", "model")}
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {**head, "object": "chat.completion.chunk", "choices": [choice]}


class Groq(Dialect):
    """Frames without choices; usage under `x_groq`; refuses what it does not know in a message."""

    name = "groq"

    def refuse(self, body: Json) -> tuple[int, Any] | None:
        for path in odd_message_fields(body, STRICT_FIELDS | {"reasoning"}):
            _, index, name = path.split(".")
            words = f"'messages.{index}' : for 'role:assistant' the following must be satisfied"
            words += f"[('messages.{index}' : property '{name}' is unsupported)]"
            return 400, {"error": {"message": words, "type": "invalid_request_error"}}
        return super().refuse(body)

    def whole(self, completion: Json) -> Json:
        return {**bare(completion), "x_groq": {"id": "req_1"}}

    def head(self, completion: Json) -> list[bytes]:
        return [event({"id": completion["id"], "x_groq": {"id": "req_1"}})]

    def delta(self, completion: Json, delta: Json, finish_reason: str | None) -> list[bytes]:
        chunk = bare_chunk(completion, delta, finish_reason)
        if finish_reason and "usage" in completion:
            chunk["x_groq"] = {"id": "req_1", "usage": plain_usage(completion["usage"])}
        return [event(chunk)]

    def tail(self, completion: Json, *, include_usage: bool) -> list[bytes]:
        return [event({"id": completion["id"], "choices": None})]


class Mistral(Dialect):
    """Content in parts where it thinks, whole calls, usage with the end; refuses fields that it does not know."""

    name = "mistral"
    refused = OPENAI_ONLY | {"stream_options", "max_completion_tokens"}

    def refuse(self, body: Json) -> tuple[int, Any] | None:
        unknown = unknown_fields(body, self.refused) + odd_message_fields(body, STRICT_FIELDS - {"name"} | {"prefix"})
        if not unknown:
            return super().refuse({**body, "stream_options": None})
        detail = [
            {"type": "extra_forbidden", "loc": ["body", *path.split(".")], "msg": "Extra inputs are not permitted"}
            for path in unknown
        ]
        return 422, {"object": "error", "message": {"detail": detail}, "type": "invalid_request_error", "code": None}

    def error(self, status: int, error: Json) -> Any:
        return {"object": "error", "message": error["message"], "type": "service_error", "param": None, "code": status}

    def whole(self, completion: Json) -> Json:
        whole = bare(completion)
        message = whole["choices"][0]["message"]
        if message["content"]:
            thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
            message["content"] = [thinking, {"type": "text", "text": message["content"]}]
        return whole

    def head(self, completion: Json) -> list[bytes]:
        thinking = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]
        return [event(bare_chunk(completion, {"role": "assistant", "content": thinking}, None))]

    def delta(self, completion: Json, delta: Json, finish_reason: str | None) -> list[bytes]:
        chunk = bare_chunk(completion, delta, finish_reason)
        if finish_reason and "usage" in completion:
            chunk["usage"] = plain_usage(completion["usage"])
        return [event(chunk)]

    def tail(self, completion: Json, *, include_usage: bool) -> list[bytes]:
        return []


class DeepSeek(Dialect):
    """Comments while it waits, its reasoning beside the content, and cached tokens under names of its own."""

    name = "deepseek"

    def whole(self, completion: Json) -> Json:
        whole = bare(completion)
        whole["choices"][0]["message"]["reasoning_content"] = "hm"
        return whole

    def head(self, completion: Json) -> list[bytes]:
        thinking = {"role": "assistant", "content": None, "reasoning_content": "hm"}
        return [b": keep-alive\n\n", event(bare_chunk(completion, thinking, None))]

    def delta(self, completion: Json, delta: Json, finish_reason: str | None) -> list[bytes]:
        chunk = {**bare_chunk(completion, {**delta, "reasoning_content": None}, finish_reason), "usage": None}
        if finish_reason and "usage" in completion:
            usage = plain_usage(completion["usage"])
            chunk["usage"] = {**usage, "prompt_cache_hit_tokens": 0, "prompt_cache_miss_tokens": usage["prompt_tokens"]}
        return [event(chunk)]

    def tail(self, completion: Json, *, include_usage: bool) -> list[bytes]:
        return []


class OldVllm(Dialect):
    """Knows neither stream_options nor max_completion_tokens, and says in a stream what it used nowhere."""

    name = "vllm-old"
    says_usage = "never"
    refused = OPENAI_ONLY | {"stream_options", "max_completion_tokens"}

    def refuse(self, body: Json) -> tuple[int, Any] | None:
        if unknown := unknown_fields(body, self.refused):
            words = f"[{{'type': 'extra_forbidden', 'loc': ('body', '{unknown[0]}'), 'msg': 'Extra inputs are not "
            words += "permitted'}]"
            return 400, {"object": "error", "message": words, "type": "BadRequestError", "param": None, "code": 400}
        return super().refuse(body)

    def error(self, status: int, error: Json) -> Any:
        kind = "InternalServerError"
        return {"object": "error", "message": error["message"], "type": kind, "param": None, "code": status}

    def whole(self, completion: Json) -> Json:
        return bare(completion)

    def delta(self, completion: Json, delta: Json, finish_reason: str | None) -> list[bytes]:
        return [event(bare_chunk(completion, delta, finish_reason))]

    def tail(self, completion: Json, *, include_usage: bool) -> list[bytes]:
        return []


class Tolerant(Dialect):
    """Passes over fields that it does not know, of requests and of messages."""

    def refuse(self, body: Json) -> tuple[int, Any] | None:
        known = {name: value for name, value in body.items() if name in PARAMETERS - {"reasoning_effort"}}
        fields = STRICT_FIELDS | {"refusal"}
        messages = [{name: value for name, value in message.items() if name in fields} for message in body["messages"]]
        return super().refuse({**known, "messages": messages})


class NewVllm(Tolerant):
    """Its reasoning under two names, empty lists of calls, cumulative usage, and fields of its own."""

    name = "vllm"
    says_usage = "with each chunk"

    def whole(self, completion: Json) -> Json:
        whole = bare(completion)
        message: Json = {"refusal": None, "annotations": None, "audio": None, "function_call": None, "tool_calls": []}
        message |= {**whole["choices"][0]["message"], "reasoning": "hm", "reasoning_content": "hm"}
        whole["choices"][0] |= {"message": message, "stop_reason": None, "token_ids": None}
        return {**whole, "service_tier": None, "system_fingerprint": None, "prompt_logprobs": None}

    def head(self, completion: Json) -> list[bytes]:
        thinking = {"role": "assistant", "content": "", "reasoning": "hm", "reasoning_content": "hm"}
        return [event(bare_chunk(completion, thinking, None))]

    def delta(self, completion: Json, delta: Json, finish_reason: str | None) -> list[bytes]:
        chunk = bare_chunk(completion, {"reasoning_content": None, "tool_calls": [], **delta}, finish_reason)
        chunk["choices"][0] |= {"stop_reason": None, "token_ids": None}
        if "usage" in completion:
            usage = plain_usage(completion["usage"])
            chunk["usage"] = {**usage, "completion_tokens": 0, "total_tokens": usage["prompt_tokens"]}
        return [event(chunk)]

    def tail(self, completion: Json, *, include_usage: bool) -> list[bytes]:
        if not include_usage or "usage" not in completion:
            return []
        head = {name: completion[name] for name in ("id", "created", "model")}
        return [event({**head, "choices": [], "usage": plain_usage(completion["usage"])})]


class LlamaCpp(Tolerant):
    """Null content at the beginning, its timings beside the usage, numbers for codes."""

    name = "llama.cpp"

    def error(self, status: int, error: Json) -> Any:
        return {"error": {"code": status, "message": error["message"], "type": "server_error"}}

    def whole(self, completion: Json) -> Json:
        return {**bare(completion), "timings": {"prompt_n": 1, "predicted_n": 1, "cache_n": 0}}

    def delta(self, completion: Json, delta: Json, finish_reason: str | None) -> list[bytes]:
        if "role" in delta:
            delta = {"role": "assistant", "content": None}
        return [event(bare_chunk(completion, delta, finish_reason))]

    def tail(self, completion: Json, *, include_usage: bool) -> list[bytes]:
        if not include_usage or "usage" not in completion:
            return []
        head = {name: completion[name] for name in ("id", "created", "model")}
        usage = plain_usage(completion["usage"])
        return [event({**head, "choices": [], "usage": usage, "timings": {"prompt_n": 1, "predicted_n": 1}})]


class OpenRouter(Dialect):
    """Comments while it waits, a role in each delta, reasoning twice, usage beside an empty delta."""

    name = "openrouter"

    def error(self, status: int, error: Json) -> Any:
        return {"error": {"code": status, "message": error["message"], "metadata": {"provider_name": "x"}}}

    def whole(self, completion: Json) -> Json:
        whole = bare(completion)
        details = [{"type": "reasoning.text", "text": "hm", "index": 0}]
        whole["choices"][0]["message"] |= {"refusal": None, "reasoning": "hm", "reasoning_details": details}
        whole["choices"][0]["native_finish_reason"] = "completed"
        return {**whole, "provider": "x"}

    def head(self, completion: Json) -> list[bytes]:
        details = [{"type": "reasoning.text", "text": "hm", "index": 0}]
        thinking = {"role": "assistant", "content": "", "reasoning": "hm", "reasoning_details": details}
        return [b": OPENROUTER PROCESSING\n\n" * 2, event(bare_chunk(completion, thinking, None))]

    def delta(self, completion: Json, delta: Json, finish_reason: str | None) -> list[bytes]:
        chunk = bare_chunk(completion, {"role": "assistant", "content": "", **delta}, finish_reason)
        chunk["choices"][0]["native_finish_reason"] = finish_reason
        return [event({**chunk, "provider": "x"})]

    def tail(self, completion: Json, *, include_usage: bool) -> list[bytes]:
        chunk = bare_chunk(completion, {"role": "assistant", "content": ""}, None)
        if "usage" in completion:
            chunk["usage"] = {**plain_usage(completion["usage"]), "cost": 0.00001, "is_byok": False}
        return [event(chunk)]


class Qwen(Dialect):
    """Empty ids and names in later pieces of a call, and no [DONE]."""

    name = "qwen"
    has_done = False

    def whole(self, completion: Json) -> Json:
        return bare(completion)

    def delta(self, completion: Json, delta: Json, finish_reason: str | None) -> list[bytes]:
        if (calls := delta.get("tool_calls")) and "id" not in calls[0]:
            function = {"name": "", "arguments": calls[0]["function"]["arguments"]}
            delta = {"tool_calls": [{"index": calls[0]["index"], "id": "", "type": "", "function": function}]}
        return [event({**bare_chunk(completion, delta, finish_reason), "usage": None})]

    def tail(self, completion: Json, *, include_usage: bool) -> list[bytes]:
        if not include_usage or "usage" not in completion:
            return []
        head = {name: completion[name] for name in ("id", "created", "model")}
        return [event({**head, "choices": [], "usage": plain_usage(completion["usage"])})]


OPENAI, AZURE, GEMINI, GROQ, MISTRAL, DEEPSEEK = Dialect(), Azure(), Gemini(), Groq(), Mistral(), DeepSeek()
VLLM_OLD, VLLM, LLAMA_CPP, OPENROUTER, QWEN = OldVllm(), NewVllm(), LlamaCpp(), OpenRouter(), Qwen()
DIALECTS = [OPENAI, AZURE, GEMINI, GROQ, MISTRAL, DEEPSEEK, VLLM_OLD, VLLM, LLAMA_CPP, OPENROUTER, QWEN]
BY_NAME = {dialect.name: dialect for dialect in DIALECTS}
