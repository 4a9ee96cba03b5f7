"""The fields that a client may send. A field that is not listed is refused by its name, never ignored.

Null means absent: the JSON of many clients has null for each field that they do not use.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

from django.conf import settings
from django.utils.functional import cached_property
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from chat.api import messages, parts
from chat.api.fields import OWN
from chat.api.scalars import AnyValue, Few, Flag, Number, Object, Pairs, Text, Whole
from chat.api.users import UserId
from chat.exceptions import ModelNotFound
from chat.model_names import is_known

MOST = 2**31 - 1  # tokens
MAX_TOOLS = 128
MAX_BIASES = 1024
MAX_MODALITIES = 8
# Empty, these ask for nothing.
MAY_BE_EMPTY = frozenset(
    {"tools", "stop", "logit_bias", "stream_options", "metadata", "user", "response_format", "prediction"}
)
WORDS = frozenset(
    {
        *("conversation_id", "model", "reasoning_effort", "verbosity", "service_tier", "function_call"),
        *("prompt_cache_key", "prompt_cache_retention", "safety_identifier"),
    }
)


def validated(asked: serializers.BaseSerializer[Any]) -> Any:
    """Return what is asked, checked. Raises ValidationError."""
    asked.is_valid(raise_exception=True)
    return asked.validated_data


def refuse_many_fields(data: dict[str, Any]) -> None:
    if len(data) > parts.MAX_FIELDS:
        raise parts.invalid(f"Send at most {parts.MAX_FIELDS} fields.", "non_field_errors")


@cache
def bound_fields(kind: type[serializers.Serializer[Any]]) -> Mapping[str, Any]:
    """Return the fields of a serializer, for all requests. A field keeps nothing of the data that it checks."""
    return kind().fields


class KnownFieldsSerializer(serializers.Serializer[Any]):
    @cached_property
    def fields(self) -> Any:
        """Return the fields that the request has or must have. DRF would copy all of them for each request."""
        data = getattr(self, "initial_data", None)
        if not isinstance(data, dict):
            return super().fields
        declared = bound_fields(type(self)).items()
        return {name: field for name, field in declared if name in data or field.required}

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, dict):
            refuse_many_fields(data)
            data = {name: value for name, value in data.items() if value is not None or self.tells_null_apart(name)}
            for name in data:
                if name not in self._declared_fields:
                    raise parts.invalid(parts.UNKNOWN, name[:100])
        return super().to_internal_value(data)

    def tells_null_apart(self, name: str) -> bool:
        return name in self._declared_fields and self._declared_fields[name].allow_null


class Metadata(serializers.DictField):
    """OpenAI's limits: 16 pairs, keys of 64 characters, values of 512."""

    child = Text(max_length=512, allow_blank=True)

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, dict):
            data = parts.without_nulls(data)
            if len(data) > 16 or any(len(key) > 64 for key in data):
                raise serializers.ValidationError("Send at most 16 pairs, with keys of at most 64 characters.")
        return super().to_internal_value(data)


class Content(serializers.Field[Any, Any, Any, Any]):
    """A string, or a list of OpenAI's content parts."""


class MessageIn(serializers.Serializer[Any]):
    """A message as OpenAI has it in chat completions."""  # for the schema: messages.read_message reads it

    role = serializers.ChoiceField(choices=messages.ROLES)
    content = Content(required=False)
    name = Text(required=False, max_length=messages.MAX_NAME)
    tool_calls = serializers.ListField(child=serializers.DictField(), required=False)
    tool_call_id = Text(required=False, max_length=messages.MAX_CALL_ID)
    refusal = Text(required=False)
    reasoning_content = Text(required=False, help_text="Of an assistant, as the reply had it.")
    reasoning_details = serializers.ListField(child=serializers.DictField(), required=False)
    extra_content = serializers.DictField(required=False)


class ItemIn(serializers.Serializer[Any]):
    """A message as OpenAI has it in conversations."""  # for the schema: messages.read_item reads it

    type = serializers.ChoiceField(choices=["message"], required=False)
    role = serializers.ChoiceField(choices=messages.ITEM_ROLES)
    content = Content()


@extend_schema_field(MessageIn(many=True))
class Messages(serializers.Field[Any, Any, Any, Any]):
    def to_internal_value(self, data: Any) -> list[dict[str, Any]]:
        return messages.read_messages(data)


@extend_schema_field(ItemIn(many=True))
class Items(serializers.Field[Any, Any, Any, Any]):
    def to_internal_value(self, data: Any) -> list[dict[str, Any]]:
        return messages.read_items(data)


class ItemsIn(KnownFieldsSerializer):
    items = Items()

    def validate_items(self, value: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if not value:
            raise serializers.ValidationError("Send at least one item.")
        return value


class ItemListQuery(serializers.Serializer[Any]):
    limit = serializers.IntegerField(min_value=1, max_value=100, default=20)
    order = serializers.ChoiceField(choices=["asc", "desc"], default="desc")
    after = Text(required=False, help_text="The last_id of the page before.")


class ConversationUpdateIn(KnownFieldsSerializer):
    metadata = Metadata(allow_null=True, help_text="null empties it.")


class ConversationIn(KnownFieldsSerializer):
    metadata = Metadata(required=False)
    items = Items(required=False)


class StreamOptions(KnownFieldsSerializer):
    include_usage = Flag(required=False, help_text="One more chunk at the end, with the usage.")
    include_obfuscation = Flag(required=False, help_text="Accepted; nothing is padded.")


class CompletionIn(KnownFieldsSerializer):
    """Either `conversation_id` and `message`, or `messages`; the rest is OpenAI's."""

    conversation_id = Text(required=False, max_length=40, help_text="The conversation to go on with.")
    message = Text(required=False, help_text="The user's message; the server remembers the rest.")
    messages = Messages(required=False)
    model = Text(required=False, max_length=100)
    user = UserId(required=False, allow_blank=True, help_text="Names the end user.")
    stream = Flag(required=False)
    stream_options = StreamOptions(required=False)
    n = Whole(
        required=False, min_value=1, max_value=1, error_messages={"max_value": "A turn has one reply; leave n out."}
    )
    metadata = Metadata(required=False, help_text="`app_version` is what metrics filter by.")

    temperature = Number(required=False, min_value=0, max_value=2)
    top_p = Number(required=False, min_value=0, max_value=1)
    frequency_penalty = Number(required=False, min_value=-2, max_value=2)
    presence_penalty = Number(required=False, min_value=-2, max_value=2)
    max_completion_tokens = Whole(required=False, min_value=1, max_value=MOST)
    max_tokens = Whole(required=False, min_value=1, max_value=MOST)
    stop = AnyValue(required=False)
    seed = Whole(required=False)
    logit_bias = Pairs(child=Number(), required=False, most=MAX_BIASES)
    logprobs = Flag(required=False)
    top_logprobs = Whole(required=False, min_value=0, max_value=20)
    response_format = Object(required=False)
    tools = Few(child=Object(), required=False, max_length=MAX_TOOLS)
    tool_choice = AnyValue(required=False)
    parallel_tool_calls = Flag(required=False)
    reasoning_effort = Text(required=False, max_length=20)
    verbosity = Text(required=False, max_length=20)
    service_tier = Text(required=False, max_length=20)
    store = Flag(required=False, help_text="Kept by the model's provider. Only then is metadata sent there.")
    prediction = Object(required=False)
    prompt_cache_key = Text(required=False, max_length=255)
    prompt_cache_options = Object(required=False)
    prompt_cache_retention = Text(required=False, max_length=20)
    safety_identifier = UserId(required=False)
    moderation = Object(required=False)
    web_search_options = Object(required=False)

    # Taken only where they ask for nothing.
    modalities = Few(child=Text(), required=False, max_length=MAX_MODALITIES, help_text="Only text.")
    audio = AnyValue(required=False, help_text="Refused: replies are text.")
    functions = AnyValue(required=False, help_text="Refused: send tools.")
    function_call = AnyValue(required=False, help_text="Refused: send tool_choice.")

    def to_internal_value(self, data: Any) -> Any:
        """Check what llmapi knows, and add the fields that UPSTREAM_FIELDS names, as they are."""
        further: dict[str, Any] = {}
        if isinstance(data, dict):
            refuse_many_fields(data)
            data = {name: value for name, value in data.items() if value != "" or name not in WORDS}
        if isinstance(data, dict) and settings.UPSTREAM_FIELDS:
            names = [name for name in settings.UPSTREAM_FIELDS if name not in self._declared_fields]
            further = {name: data[name] for name in names if data.get(name) is not None}
            data = {name: value for name, value in data.items() if name not in further}
        return {**super().to_internal_value(data), **further}

    def validate_model(self, value: str) -> str:
        if not is_known(value):
            raise ModelNotFound.named(value, settings.OPENAI_MODELS)
        return value

    def validate_stop(self, value: Any) -> list[str]:
        """Return a list, which every upstream takes. In both forms it is the same request under an Idempotency-Key."""
        stops = ([value] if value else []) if isinstance(value, str) else value
        if not (isinstance(stops, list) and len(stops) <= 4 and all(isinstance(stop, str) for stop in stops)):
            raise serializers.ValidationError("Send a string, or a list of at most four.")
        return stops

    def validate_tool_choice(self, value: Any) -> Any:
        if not isinstance(value, str | dict):
            raise serializers.ValidationError("Send none, auto, required, or an object that names a tool.")
        return value

    def validate_modalities(self, value: list[str]) -> list[str]:
        if set(value) - {"text"}:
            raise serializers.ValidationError('Replies are text; send ["text"], or leave it out.')
        return value

    def validate_audio(self, value: Any) -> Any:
        raise serializers.ValidationError("Replies are text; leave it out. Audio can be sent, as input_audio parts.")

    def validate_functions(self, value: Any) -> Any:
        if value:
            raise serializers.ValidationError("Send tools in its place, each as {'type': 'function', 'function': …}.")
        return value

    def validate_function_call(self, value: Any) -> Any:
        if value not in ("none", "auto"):
            raise serializers.ValidationError("Send tools and tool_choice in the place of functions and function_call.")
        return value

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("message" in attrs) == ("messages" in attrs):
            raise serializers.ValidationError("Send either message (with conversation_id) or messages.")
        if "message" in attrs and "conversation_id" not in attrs:
            raise serializers.ValidationError(
                {"conversation_id": ["This field is required with message; POST /v1/conversations creates one."]}
            )
        if attrs.get("stream_options") and not attrs.get("stream"):
            raise serializers.ValidationError({"stream_options": ["Only with stream: true."]})
        if attrs.get("max_completion_tokens", most := attrs.get("max_tokens")) != most and most is not None:
            raise serializers.ValidationError({"max_tokens": ["Send max_completion_tokens alone."]})
        return without_idle(attrs)


def without_idle(attrs: dict[str, Any]) -> dict[str, Any]:
    """Leave out what asks for nothing. OpenAI refuses some of it, such as an empty list of tools."""
    idle = {"functions", "function_call", "modalities"}
    idle |= {name for name, value in attrs.items() if name in MAY_BE_EMPTY and not value}
    if not attrs.get("tools"):
        idle |= {"tool_choice", "parallel_tool_calls"}
    if "max_completion_tokens" in attrs:
        idle.add("max_tokens")
    return {name: value for name, value in attrs.items() if name not in idle}


def upstream_parameters(attrs: dict[str, Any]) -> dict[str, Any]:
    """Return what of a completion's fields goes to the upstream beside the model and the messages.

    OpenAI takes metadata only of completions that it stores.
    """
    parameters = {name: value for name, value in attrs.items() if name not in OWN}
    return {**parameters, "metadata": attrs["metadata"]} if attrs.get("store") and "metadata" in attrs else parameters
