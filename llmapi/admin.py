"""Import the pages of the staff. Django's autodiscover looks for them here."""

from llmapi.staff import accounts, audit, client_tokens, conversations, events, idempotency, people, usage

__all__ = ["accounts", "audit", "client_tokens", "conversations", "events", "idempotency", "people", "usage"]
