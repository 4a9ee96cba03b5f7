"""Whom a request names: one person has one id, however a client spells it."""

from typing import Any

from rest_framework import serializers

from analytics import ledger
from chat.api.scalars import Text
from chat.exceptions import ApiError
from chat.models import ClientToken

MAX_USER_ID = 255  # characters


class UserId(Text):
    """The id of a person as `ledger.normal_user_id` spells it. Control characters are refused."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=MAX_USER_ID, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        # Before it is normalised, which takes n² steps for n accents on one letter.
        if isinstance(data, str) and len(data) > MAX_USER_ID:
            self.fail("max_length", max_length=MAX_USER_ID)
        user_id = ledger.normal_user_id(super().to_internal_value(data))
        if not user_id.strip():
            raise serializers.ValidationError("Send an id that can be seen: it has no visible character.")
        if ledger.has_controls(user_id):
            raise serializers.ValidationError("Send an id without control characters, such as a line break.")
        return user_id


def user_of(client: ClientToken, user_id: str | None, param: str = "user") -> str:
    """Return the user whom a client names, or the one that stands for the client itself where it names none.

    Raises ApiError, about `param`, where the name is kept for another client, or a session names anybody.
    """
    if not user_id:
        return client.default_user_id
    if client.person:
        raise ApiError(f"{param}: A session speaks for its own person alone; leave it out.", param=param)
    if user_id.startswith(client.USER_PREFIX) and user_id != client.default_user_id:
        raise ApiError(
            f"{param}: Ids that begin with {client.USER_PREFIX} stand for client tokens, and this one is not yours. "
            "Leave it out, or put something before it.",
            param=param,
        )
    return user_id
