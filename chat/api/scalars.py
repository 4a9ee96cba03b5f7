"""Strings, numbers and flags of JSON as they were sent: DRF's own fields also take what looks like one."""

from typing import Any

from rest_framework import serializers


class Text(serializers.CharField):
    """A string as it was sent. A number is refused, and white space is kept."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(trim_whitespace=False, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
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
