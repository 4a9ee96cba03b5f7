"""The pages of the staff, imported where Django's admin looks for them."""

from llmapi.staff import client_tokens, usage

__all__ = ["client_tokens", "usage"]
