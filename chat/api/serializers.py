"""The fields that a client may send. A field that is not listed is refused by its name, never ignored."""

import copy
from typing import Any

from django.conf import settings
from rest_framework import serializers

MOST = 2**31 - 1  # tokens


def validated(asked: serializers.BaseSerializer[Any]) -> Any:
    """Return what is asked, checked. Raises ValidationError."""
    asked.is_valid(raise_exception=True)
    return asked.validated_data


class Text(serializers.CharField):
    """A string as it was sent. A number is refused, and white space is kept."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(trim_whitespace=False, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class KnownFieldsSerializer(serializers.Serializer[Any]):
    def get_fields(self) -> dict[str, Any]:
        """Return the fields that the request has or must have. DRF copies each, which costs more than reading it."""
        data = getattr(self, "initial_data", None)
        if not isinstance(data, dict):
            return super().get_fields()
        declared = self._declared_fields.items()
        return {name: copy.deepcopy(field) for name, field in declared if name in data or field.required}

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, dict):
            for name in data:
                if name not in self._declared_fields:
                    raise serializers.ValidationError({str(name)[:100]: ["This field is not supported; leave it out."]})
        return super().to_internal_value(data)


class Metadata(serializers.DictField):
    """OpenAI's limits: 16 pairs, keys of 64 characters, values of 512."""

    child = Text(max_length=512, allow_blank=True)

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, dict) and (len(data) > 16 or any(len(str(key)) > 64 for key in data)):
            raise serializers.ValidationError("Send at most 16 pairs, with keys of at most 64 characters.")
        return super().to_internal_value(data)


class Content(serializers.JSONField):
    """A string, or a list of OpenAI's content parts."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, str):
            return data
        if isinstance(data, list) and data and all(self.is_part(part) for part in data):
            return data
        raise serializers.ValidationError("Send a string, or a list of parts such as {'type': 'text', 'text': …}.")

    def is_part(self, part: Any) -> bool:
        return isinstance(part, dict) and isinstance(part.get("type"), str) and isinstance(part.get("text", ""), str)


class ItemIn(KnownFieldsSerializer):
    """A message as the Conversations API has it."""

    type = serializers.ChoiceField(choices=["message"], required=False)
    role = serializers.ChoiceField(choices=["system", "developer", "user", "assistant"])
    content = Content()
    status = serializers.ChoiceField(choices=["completed"], required=False)


class ItemsIn(KnownFieldsSerializer):
    items = serializers.ListField(child=ItemIn(), allow_empty=False, max_length=20)


class ItemListQuery(serializers.Serializer[Any]):
    limit = serializers.IntegerField(min_value=1, max_value=100, default=20)
    order = serializers.ChoiceField(choices=["asc", "desc"], default="desc")
    after = Text(required=False, help_text="The last_id of the page before.")


class ConversationUpdateIn(KnownFieldsSerializer):
    metadata = Metadata(allow_null=True)


class ConversationIn(KnownFieldsSerializer):
    metadata = Metadata(required=False, allow_null=True)
    items = serializers.ListField(child=ItemIn(), required=False, allow_null=True, max_length=20)


class MessageIn(KnownFieldsSerializer):
    role = serializers.ChoiceField(choices=["system", "developer", "user", "assistant", "tool"])
    content = Content(required=False, allow_null=True)
    name = Text(required=False, max_length=64)
    tool_calls = serializers.ListField(child=serializers.DictField(), required=False, allow_empty=False)
    tool_call_id = Text(required=False, max_length=255)
    refusal = Text(required=False, allow_null=True)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        is_reply = attrs["role"] == "assistant"
        if attrs.get("content") is None and not (is_reply and (attrs.get("tool_calls") or attrs.get("refusal"))):
            raise serializers.ValidationError({"content": ["This field is required."]})
        if attrs["role"] == "tool" and not attrs.get("tool_call_id"):
            raise serializers.ValidationError({"tool_call_id": ["Name the call that this result answers."]})
        return attrs


class StreamOptions(KnownFieldsSerializer):
    include_usage = serializers.BooleanField(required=False, help_text="One more chunk at the end, with the usage.")
    include_obfuscation = serializers.BooleanField(required=False, help_text="Accepted; nothing is padded.")


class CompletionIn(KnownFieldsSerializer):
    """Either `conversation_id` and `message`, or `messages`; the rest is OpenAI's."""

    conversation_id = Text(required=False, max_length=40, help_text="The conversation to go on with.")
    message = Text(required=False, help_text="The user's message; the server remembers the rest.")
    messages = serializers.ListField(child=MessageIn(), required=False, allow_empty=False, max_length=2048)
    model = Text(required=False, max_length=100)
    user = Text(required=False, max_length=255, help_text="Names the end user.")
    stream = serializers.BooleanField(required=False, allow_null=True)
    stream_options = StreamOptions(required=False, allow_null=True)
    n = serializers.IntegerField(
        required=False, min_value=1, max_value=1, error_messages={"max_value": "A turn has one reply; leave n out."}
    )

    temperature = serializers.FloatField(required=False, allow_null=True, min_value=0, max_value=2)
    top_p = serializers.FloatField(required=False, allow_null=True, min_value=0, max_value=1)
    frequency_penalty = serializers.FloatField(required=False, allow_null=True, min_value=-2, max_value=2)
    presence_penalty = serializers.FloatField(required=False, allow_null=True, min_value=-2, max_value=2)
    max_completion_tokens = serializers.IntegerField(required=False, allow_null=True, min_value=1, max_value=MOST)
    max_tokens = serializers.IntegerField(required=False, allow_null=True, min_value=1, max_value=MOST)
    stop = serializers.JSONField(required=False, allow_null=True)
    seed = serializers.IntegerField(required=False, allow_null=True)
    logit_bias = serializers.DictField(child=serializers.FloatField(), required=False, allow_null=True)
    logprobs = serializers.BooleanField(required=False, allow_null=True)
    top_logprobs = serializers.IntegerField(required=False, allow_null=True, min_value=0, max_value=20)
    response_format = serializers.DictField(required=False, allow_null=True)
    tools = serializers.ListField(child=serializers.DictField(), required=False, max_length=128)
    tool_choice = serializers.JSONField(required=False, allow_null=True)
    parallel_tool_calls = serializers.BooleanField(required=False, allow_null=True)
    reasoning_effort = Text(required=False, allow_null=True, max_length=20)
    verbosity = Text(required=False, allow_null=True, max_length=20)
    service_tier = Text(required=False, allow_null=True, max_length=20)
    metadata = Metadata(required=False, allow_null=True)

    # The fields that llmapi itself acts on. All others go to the upstream as they are.
    OWN = frozenset(
        {"conversation_id", "message", "messages", "model", "user", "stream", "stream_options", "n", "metadata"}
    )

    def validate_model(self, value: str) -> str:
        if value not in settings.OPENAI_MODELS:
            raise serializers.ValidationError(
                f"Not a model of this server; choose from: {', '.join(settings.OPENAI_MODELS)}."
            )
        return value

    def validate_stop(self, value: Any) -> Any:
        stops = [value] if isinstance(value, str) else value
        if value is not None and not (
            isinstance(stops, list) and len(stops) <= 4 and all(isinstance(s, str) for s in stops)
        ):
            raise serializers.ValidationError("Send a string, or a list of at most four.")
        return value

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("message" in attrs) == ("messages" in attrs):
            raise serializers.ValidationError("Send either message (with conversation_id) or messages.")
        if "message" in attrs and "conversation_id" not in attrs:
            raise serializers.ValidationError(
                {"conversation_id": ["This field is required with message; POST /v1/conversations creates one."]}
            )
        if attrs.get("max_tokens") and attrs.get("max_completion_tokens"):
            raise serializers.ValidationError({"max_tokens": ["Send max_completion_tokens alone."]})
        if attrs.get("stream_options") and not attrs.get("stream"):
            raise serializers.ValidationError({"stream_options": ["Only with stream: true."]})
        return {name: value for name, value in attrs.items() if value is not None}
