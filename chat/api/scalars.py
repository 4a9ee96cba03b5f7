"""Strings, numbers and flags of JSON as they were sent: DRF's own fields also take what looks like one."""

from collections.abc import Mapping
from typing import Any

from django.core.validators import ProhibitNullCharactersValidator
from rest_framework import serializers
from rest_framework.validators import ProhibitSurrogateCharactersValidator

from chat.pieces import worked

# DRF looks for these characters one by one, which takes a second for 20 MB.
SLOW_VALIDATORS = (ProhibitNullCharactersValidator, ProhibitSurrogateCharactersValidator)


def is_storable(text: str) -> bool:
    """Tell whether a database stores the text. A pattern takes 0.3 s for a picture of 16 MiB, this 1 ms."""
    try:
        return "\0" not in text and (text.isascii() or bool(text.encode()))
    except UnicodeEncodeError:
        return False


class Text(serializers.CharField):
    """A string as it was sent. A number is refused, and white space is kept."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(trim_whitespace=False, **kwargs)
        self.validators = [each for each in self.validators if not isinstance(each, SLOW_VALIDATORS)]

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        if not is_storable(data):
            raise serializers.ValidationError("Text must contain neither U+0000 nor half of a surrogate pair.")
        return super().to_internal_value(data)


class Flag(serializers.BooleanField):
    """True or false of JSON. DRF also takes words such as "on", which OpenAI refuses."""

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            raise serializers.ValidationError("Send true or false.")
        return data


class Number(serializers.FloatField):
    """A number of JSON. DRF also takes strings, among them "nan", and true."""

    def to_internal_value(self, data: Any) -> float:
        if isinstance(data, bool) or not isinstance(data, int | float):
            raise serializers.ValidationError("Send a number.")
        try:
            return float(data)
        except OverflowError as exc:
            raise serializers.ValidationError("Send a number that fits 64 bits.") from exc


class Whole(serializers.IntegerField):
    """A whole number, which some languages write as 100.0."""

    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, bool) or not (isinstance(data, int) or (isinstance(data, float) and data.is_integer())):
            raise serializers.ValidationError("Send a whole number.")
        return int(data)


class Object(serializers.DictField):
    """An object of JSON as it was sent. DRF's own copies it value by value."""

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, dict):
            self.fail("not_a_dict", input_type=type(data).__name__)
        return data


class AnyValue(serializers.JSONField):
    """A value of JSON as it was sent. DRF's own writes it once, to see whether it can be written."""

    def to_internal_value(self, data: Any) -> Any:
        return data


class Few(serializers.ListField):
    """A list of at most `max_length`, which is looked at first. DRF's own lists what is wrong with each of 10,000."""

    def to_internal_value(self, data: Any) -> list[Any]:
        if isinstance(data, list) and len(data) > (self.max_length or 0):
            self.fail("max_length", max_length=self.max_length)
        return super().to_internal_value(data)

    def run_child_validation(self, data: list[Any]) -> list[Any]:
        return [validated_at(index, self.child, item) for index, item in enumerate(data)]


class Pairs(serializers.DictField):
    """An object of at most `most` pairs, which is looked at first. The first bad one is told."""

    def __init__(self, *, most: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.most = most

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, dict) and len(data) > self.most:
            raise serializers.ValidationError(f"Send at most {self.most:,} pairs.")
        return super().to_internal_value(data)

    def run_child_validation(self, data: Mapping[str, Any]) -> dict[str, Any]:
        found = {}
        for key, value in data.items():
            worked(2)
            found[key] = validated_at(key, self.child, value)
        return found


def validated_at(place: str | int, field: serializers.Field[Any, Any, Any, Any], value: Any) -> Any:
    try:
        return field.run_validation(value)
    except serializers.ValidationError as exc:
        detail: dict[Any, Any] = {place: exc.detail}
        raise serializers.ValidationError(detail) from exc
