from chat.audit import AuditRecord
from chat.models.clients import ClientToken
from chat.models.conversations import (
    Conversation,
    ConversationManager,
    ConversationQuerySet,
    Message,
    new_conversation_id,
    text_of,
)
from chat.models.idempotency import KEY_TTL, IdempotencyKey, IdempotencyKeyQuerySet
from chat.models.identity import Attestation, IdentityProvider
from chat.models.limits import Budget, RateLimit
from chat.models.people import ClientSession, Person, SigningKey
from chat.models.plans import Plan
from chat.models.upkeep import Chore, UpstreamModel

__all__ = [
    "KEY_TTL",
    "Attestation",
    "AuditRecord",
    "Budget",
    "Chore",
    "ClientSession",
    "ClientToken",
    "Conversation",
    "ConversationManager",
    "ConversationQuerySet",
    "IdempotencyKey",
    "IdempotencyKeyQuerySet",
    "IdentityProvider",
    "Message",
    "Person",
    "Plan",
    "RateLimit",
    "SigningKey",
    "UpstreamModel",
    "new_conversation_id",
    "text_of",
]
