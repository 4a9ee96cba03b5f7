"""The statements of a turn, in the order in which they run: here a reader counts what a request costs.

Each takes the rows of all turns that run it together (`chat.sql`, `chat.turns.lanes`). All transactions lock rows in
the order of this page, and those of one table by their keys, so that no two wait for each other.
"""

from django.db.models import Model

from analytics.ledger import LATE_AFTER
from chat.limits.rates import HELD, MAX_BACKLOG, PERIOD, admission_of
from chat.models import KEY_TTL, ClientSession, ClientToken, Person, Plan
from chat.sql import IS_LARGE, MESSAGE_BYTES, Statement
from chat.turns.cuts import MAX_MESSAGES
from chat.turns.registry import LEASE

# --- authenticate and admit ---


def columns_of(model: type[Model]) -> str:
    meta = model._meta
    return ", ".join(f"{meta.db_table}.{field.column}" for field in meta.concrete_fields)


CLIENT = columns_of(ClientToken)

FIND_CLIENT = Statement(
    "find_client",
    f"SELECT {CLIENT} FROM {{new}} JOIN client_tokens ON client_tokens.digest = new.digest",
    {"digest": "text"},
)
# The one row that stands for CLIENT_API_TOKEN.
FIND_SETTING_CLIENT = Statement(
    "find_setting_client",
    f"SELECT {CLIENT} FROM {{new}} JOIN client_tokens ON client_tokens.is_setting WHERE new.is_setting",
    {"is_setting": "boolean"},
)
# A session of a person, with the person, the app and the plan: what was revoked a moment ago is seen here.
SESSION_MODELS = (ClientSession, ClientToken, Person, Plan)
FIND_SESSION = Statement(
    "find_session",
    f"""
    SELECT {", ".join(map(columns_of, SESSION_MODELS))} FROM {{new}}
    JOIN client_sessions ON client_sessions.session_id = new.session_id
    JOIN signing_keys ON signing_keys.kid = new.kid
        AND (signing_keys.retires_at IS NULL OR signing_keys.retires_at > {{now}})
    JOIN people ON people.person_id = client_sessions.person_id
    JOIN client_tokens ON client_tokens.id = people.client_token_id
    LEFT JOIN plans ON plans.id = COALESCE(people.plan_id, people.claimed_plan_id,
        CASE WHEN people.subject = '' THEN client_tokens.anonymous_plan_id ELSE client_tokens.default_plan_id END)
    """,
    {"session_id": "text", "kid": "text"},
)
# Takes places of buckets of a minute.
ADMIT = admission_of(PERIOD)

# --- open: claim, own, remember, reserve ---

FIND_KEYS = Statement(
    "find_keys",
    """
    SELECT new.request_id, COALESCE({octets}(CAST(held.response_json AS {raw})), 0) > new.most_bytes,
        held.request_id, held.request_hash,
        CASE WHEN {octets}(CAST(held.response_json AS {raw})) <= new.most_bytes THEN held.response_json END,
        held.created_at < {expired}, held.locked_until >= {now}
    FROM {new} JOIN idempotency_keys AS held
        ON held.client_token_id = new.client_token_id AND held.idempotency_key = new.idempotency_key
    """,
    {"request_id": "text", "client_token_id": "bigint", "idempotency_key": "text", "most_bytes": "bigint"},
    {"expired": -KEY_TTL},
)
# Not of one that is deleted. It names the rows as well: PostgreSQL takes `IS NULL` for rare before it has counted, and
# would begin with a search for such conversations.
IS_KEPT = "(conversations.deleted_at IS NULL OR new.conversation_id IS NULL)"
OWNED = f"""
    {{new}} JOIN conversations ON conversations.conversation_id = new.conversation_id
        AND conversations.client_token_id = new.client_token_id AND {IS_KEPT}
        AND (new.owner_id = '' OR conversations.user_id = new.owner_id)
"""
ASKED = {"request_id": "text", "client_token_id": "bigint", "owner_id": "text", "conversation_id": "text"}
NEWEST = "messages WHERE conversation_id = new.conversation_id AND id >= COALESCE(conversations.history_from, 0)"
FIND_CONVERSATIONS = Statement(
    "find_conversations",
    f"""
    SELECT new.request_id, new.conversation_id, conversations.history_from, conversations.instructions_to FROM {OWNED}
    """,
    ASKED,
)
# One message more than is used tells that there are more. So many that are not large are few bytes. They begin after a
# large one, which comes without its text.
READ_HISTORIES = Statement(
    "read_histories",
    f"""
    SELECT new.request_id, messages.id, messages.role, CASE WHEN NOT {IS_LARGE} THEN messages.content END,
        CASE WHEN NOT {IS_LARGE} THEN CAST(messages.extra AS text) END, messages.request_id
    FROM {OWNED} JOIN messages ON messages.conversation_id = conversations.conversation_id AND messages.id >= (
        SELECT {{greatest}}(min(newest.id), COALESCE((SELECT max(id) FROM {NEWEST} AND {IS_LARGE}), 0))
        FROM (SELECT id FROM {NEWEST} ORDER BY id DESC LIMIT {MAX_MESSAGES + 1}) AS newest
    )
    ORDER BY messages.id
    """,
    ASKED,
)
# Of conversations with large messages: up to `most_bytes`, but the newest `at_least` however large. Where there are
# more, the next one comes without its text, and `edge` is its id, negative. The window adds up message by message and
# stops there: what is beyond is not even read from the disk.
READ_LARGE_HISTORIES = Statement(
    "read_large_histories",
    f"""
    WITH asked AS MATERIALIZED (
        SELECT new.request_id, new.conversation_id, COALESCE((
            SELECT -id FROM (
                SELECT id, row_number() OVER newer AS position, sum({MESSAGE_BYTES}) OVER newer AS total
                FROM {NEWEST} WINDOW newer AS (ORDER BY id DESC ROWS UNBOUNDED PRECEDING)
            ) AS sums
            WHERE position > new.at_least AND (position > {MAX_MESSAGES} OR total > new.most_bytes) LIMIT 1
        ), conversations.history_from, 0) AS edge FROM {OWNED}
    )
    SELECT asked.request_id, messages.id, messages.role, CASE WHEN messages.id <> -edge THEN messages.content END,
        CASE WHEN messages.id <> -edge THEN CAST(messages.extra AS text) END, messages.request_id
    FROM asked JOIN messages ON messages.conversation_id = asked.conversation_id AND messages.id >= abs(edge)
    ORDER BY messages.id
    """,
    {**ASKED, "most_bytes": "bigint", "at_least": "bigint"},
)
HELD_KEY = {"client_token_id": "bigint", "idempotency_key": "text", "request_id": "text"}
IS_HELD_KEY = """
    idempotency_keys.client_token_id = new.client_token_id AND idempotency_keys.idempotency_key = new.idempotency_key
        AND idempotency_keys.request_id = new.request_id
"""
HAS_LOST_KEY = f"new.is_fenced AND NOT EXISTS (SELECT 1 FROM idempotency_keys WHERE {IS_HELD_KEY})"
# The key is new, or its answer is too old, or its turn died.
CLAIM_KEYS = Statement(
    "claim_keys",
    """
    INSERT INTO idempotency_keys AS held
        (client_token_id, idempotency_key, request_hash, response_json, request_id, locked_until, created_at)
    SELECT client_token_id, idempotency_key, request_hash, NULL, request_id, {lease_end}, {now} FROM {new} WHERE true
    ON CONFLICT (client_token_id, idempotency_key) DO UPDATE SET
        request_hash = excluded.request_hash, response_json = NULL, request_id = excluded.request_id,
        locked_until = excluded.locked_until, created_at = excluded.created_at
    WHERE CASE WHEN held.response_json IS NULL THEN held.locked_until < {now} ELSE held.created_at < {expired} END
    RETURNING request_id
    """,
    {"client_token_id": "bigint", "idempotency_key": "text", "request_hash": "text", "request_id": "text"},
    {"expired": -KEY_TTL, "lease_end": LEASE},
)
# All of a client's budgets or none: where a row is missing from the answer, its limit refuses the turn, and the
# transaction is rolled back. The statement that counts compares, so that parallel turns cannot both take what is left.
RESERVE = Statement(
    "reserve",
    """
    INSERT INTO budgets AS held (key, client_token_id, user_id, unit, period, used, most, resets_at)
    SELECT key, client_token_id, user_id, unit, period, used, most, resets_at {utc} FROM {new} WHERE true
    ON CONFLICT (key) DO UPDATE
        SET used = held.used + excluded.used, most = excluded.most
        WHERE excluded.most IS NULL OR held.used + excluded.used <= excluded.most
    RETURNING key
    """,
    {
        "key": "text",
        "client_token_id": "bigint",
        "user_id": "text",
        "unit": "text",
        "period": "text",
        "used": "bigint",
        "most": "bigint",
        "resets_at": "timestamp",
    },
)
# For a batch in which one may be refused: what is used before. What is missing has not been used.
FIND_USED = Statement(
    "find_used", "SELECT budgets.key, budgets.used FROM {new} JOIN budgets ON budgets.key = new.key", {"key": "text"}
)
# Then ADMIT, for the tokens of the minute. A turn opens if it holds its key.
OPEN_USAGE = Statement(
    "open_usage",
    f"""
    INSERT INTO usage_events (request_id, client_token_id, user_id, conversation_id, model, served_model, service_tier,
        app_version, status, error_code, prompt_tokens, cached_tokens, cache_write_tokens, completion_tokens,
        reasoning_tokens, total_tokens, is_estimated, is_stream, is_cancel_asked, locked_until, reserved_json,
        created_at)
    SELECT request_id, client_token_id, user_id, conversation_id, model, '', '', app_version, 'pending', '', 0, 0, 0, 0,
        0, 0, {{false}}, is_stream, {{false}}, {{lease_end}}, CAST(reserved_json AS {{json}}), {{now}}
    FROM {{new}} WHERE NOT ({HAS_LOST_KEY})
    """,
    {
        "request_id": "text",
        "client_token_id": "bigint",
        "user_id": "text",
        "conversation_id": "text",
        "model": "text",
        "app_version": "text",
        "is_stream": "boolean",
        "is_fenced": "boolean",
        "idempotency_key": "text",
        "reserved_json": "text",
    },
    {"lease_end": LEASE},
)

# --- settle ---

COMPLETE_KEYS = Statement(
    "complete_keys",
    f"""
    UPDATE idempotency_keys SET response_json = new.response_json FROM {{new}}
    WHERE {IS_HELD_KEY} AND idempotency_keys.response_json IS NULL
    """,
    {**HELD_KEY, "response_json": "text"},
)
# Of turns that failed, so that a retry runs.
RELEASE_KEYS = Statement(
    "release_keys",
    f"""
    DELETE FROM idempotency_keys WHERE id IN (
        SELECT idempotency_keys.id FROM {{new}} JOIN idempotency_keys ON {IS_HELD_KEY} WHERE response_json IS NULL
    )
    """,
    HELD_KEY,
)
# Closes pending rows of days that are not final before this transaction commits. A turn that has lost its key to
# another is abandoned.
CLOSE_USAGE = Statement(
    "close_usage",
    f"""
    UPDATE usage_events SET
        status = CASE WHEN {HAS_LOST_KEY} THEN 'abandoned' ELSE new.status END,
        error_code = CASE WHEN {HAS_LOST_KEY} THEN 'superseded' ELSE new.error_code END,
        latency_ms = new.latency_ms, first_token_ms = new.first_token_ms, prompt_tokens = new.prompt_tokens,
        cached_tokens = new.cached_tokens, cache_write_tokens = new.cache_write_tokens,
        completion_tokens = new.completion_tokens, reasoning_tokens = new.reasoning_tokens,
        total_tokens = new.total_tokens, is_estimated = new.is_estimated, cost_nanos = new.cost_nanos,
        served_model = new.served_model, service_tier = new.service_tier, reserved_json = NULL, finished_at = {{now}}
    FROM {{new}}
    WHERE usage_events.request_id = new.request_id AND usage_events.status = 'pending'
        AND usage_events.created_at > {{recent}}
    RETURNING usage_events.request_id, usage_events.status
    """,
    {
        **HELD_KEY,
        "is_fenced": "boolean",
        "status": "text",
        "error_code": "text",
        "latency_ms": "bigint",
        "first_token_ms": "bigint",
        "prompt_tokens": "bigint",
        "cached_tokens": "bigint",
        "cache_write_tokens": "bigint",
        "completion_tokens": "bigint",
        "reasoning_tokens": "bigint",
        "total_tokens": "bigint",
        "is_estimated": "boolean",
        "cost_nanos": "bigint",
        "served_model": "text",
        "service_tier": "text",
    },
    {"recent": -LATE_AFTER},
)
ADD_EVENTS = Statement(
    "add_events",
    """
    INSERT INTO analytics_events (event_name, request_id, client_token_id, user_id, conversation_id, app_version, model,
        metadata_json, created_at)
    SELECT event_name, request_id, client_token_id, user_id, conversation_id, app_version, model,
        CAST(metadata_json AS {json}), {now} FROM {new}
    """,
    {
        "event_name": "text",
        "request_id": "text",
        "client_token_id": "bigint",
        "user_id": "text",
        "conversation_id": "text",
        "app_version": "text",
        "model": "text",
        "metadata_json": "text",
    },
)
# What was reserved becomes what was used. It runs for the counts of running turns first: whoever writes a client's
# budgets takes that row's lock before.
SETTLE_BUDGETS = Statement(
    "settle_budgets",
    "UPDATE budgets SET used = used + new.difference FROM {new} WHERE budgets.key = new.key",
    {"key": "text", "difference": "bigint"},
)
# More was used than was estimated.
CHARGE = Statement(
    "charge",
    f"""
    UPDATE rate_limits AS held SET theoretical_arrival = {{least}}({HELD} + new.cost, {{epoch}} + {MAX_BACKLOG})
    FROM {{new}} WHERE held.key = new.key
    """,
    {"key": "text", "cost": "float8"},
)
# Locks each conversation's row, so that turns commit in the order of their messages.
TOUCH_CONVERSATIONS = Statement(
    "touch_conversations",
    f"""
    UPDATE conversations SET
        updated_at = {{now}},
        user_id = CASE WHEN conversations.user_id = '' THEN new.user_id ELSE conversations.user_id END,
        history_from = COALESCE(new.history_from, conversations.history_from),
        instructions_to = CASE WHEN new.history_from IS NULL THEN conversations.instructions_to
            ELSE new.instructions_to END
    FROM {{new}} WHERE conversations.conversation_id = new.conversation_id AND {IS_KEPT}
    RETURNING conversations.conversation_id
    """,
    {"conversation_id": "text", "user_id": "text", "history_from": "bigint", "instructions_to": "bigint"},
)
ADD_MESSAGES = Statement(
    "add_messages",
    f"""
    INSERT INTO messages (conversation_id, role, content, extra, request_id, created_at)
    SELECT conversations.conversation_id, new.role, new.content, CAST(new.extra AS {{json}}), new.request_id, {{now}}
    FROM {{new}} JOIN conversations ON conversations.conversation_id = new.conversation_id AND {IS_KEPT}
    ORDER BY new.position
    """,
    {
        "position": "bigint",
        "conversation_id": "text",
        "role": "text",
        "content": "text",
        "extra": "text",
        "request_id": "text",
    },
)
# Of turns whose conversation was deleted meanwhile: their answer must not be given again.
FORGET_KEYS = Statement(
    "forget_keys",
    f"""
    DELETE FROM idempotency_keys WHERE id IN (
        SELECT idempotency_keys.id FROM {{new}} JOIN idempotency_keys ON {IS_HELD_KEY}
        WHERE NOT EXISTS (
            SELECT 1 FROM conversations WHERE conversations.conversation_id = new.conversation_id AND {IS_KEPT}
        )
    )
    """,
    {**HELD_KEY, "conversation_id": "text"},
)
