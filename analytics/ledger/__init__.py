"""The ledger: what happened, to whom, and what it cost. Other packages write it by these names."""

from analytics.ledger.endings import Ending, LlmTokens, Status
from analytics.ledger.events import Event, Subject, known_event_ids, record_client_events, record_event, turns_of
from analytics.ledger.invalidation import SETTLE_GRACE, database_now, invalidate
from analytics.ledger.log import log_turn, pseudonym
from analytics.ledger.merges import merge_users
from analytics.ledger.prices import cost_nanos, most_cost_nanos
from analytics.ledger.refusals import count_refusal, flush_at_exit, flush_refusals
from analytics.ledger.turns import (
    LATE_AFTER,
    abandon,
    abandon_stale,
    cancel_requested,
    close_usage,
    renew_leases,
    request_cancel,
)
from analytics.ledger.users import has_controls, normal_user_id
