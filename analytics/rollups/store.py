"""Keep the rollups of a day whole: they are replaced together, so that each raw row counts once by construction.

A day's raw rows are read and added up outside of any transaction; the result then replaces what was there, in one
short transaction. That transaction first claims the day's row in `rollup_days` with the number of changes that was
found there before reading. The claim fails where somebody has changed a raw row of the day since, or has built the
day, and the day is read again. Whoever changes a raw row of a day that is over raises that number, in the same
transaction (`ledger.invalidation`).
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import TypeVar

from django.db import OperationalError, transaction
from django.db.models import F, Max, Model, Q, Sum
from django.db.models.functions import Now

from analytics.cooperative import taking_breaks
from analytics.ledger import SETTLE_GRACE, sums
from analytics.models import (
    ActivityRollup,
    MergedUser,
    Milestone,
    OpenSession,
    RollupDay,
    SessionRollup,
    SignUp,
    UsageRollup,
    UserDay,
)
from analytics.query import DAY
from analytics.rollups import activity, build

M = TypeVar("M", bound=Model)

# Rows in one INSERT: a few dozen milliseconds of work.
BATCH = 250
# How often a day is read without a lock before it is read with one.
TRIES = 3
# PostgreSQL's deadlock_detected.
DEADLOCK = "40P01"
# The completed turn that makes a new user an activated one.
ACTIVATED_BY = 5


def build_day(day: date) -> bool:
    """Read a day's raw rows and replace its rollups. Returns False where another process was faster."""
    RollupDay.objects.bulk_create([RollupDay(day=day)], ignore_conflicts=True)
    for _ in range(TRIES):
        try:
            outcome = try_to_build(day)
        except OperationalError as exc:
            # A deadlock with another builder over users' rows: its victim has lost nothing, and reads again. Whoever
            # waited for a lock, or for a database that is silent, has waited long enough.
            if getattr(exc.__cause__, "sqlstate", None) != DEADLOCK:
                raise
            continue
        if outcome is not None:
            return outcome
    with transaction.atomic():
        # The rows change faster than they are read: this once, writers wait for the day's lock.
        RollupDay.objects.filter(pk=day).update(changes=F("changes"))
        return bool(try_to_build(day))


def try_to_build(day: date) -> bool | None:
    """Return None where the day's rows have changed since they were read."""
    # The database's clock is the one that all nodes share.
    now = RollupDay.objects.annotate(now=Now()).values_list("now", flat=True).get(pk=day)
    before = RollupDay.objects.get(pk=day)
    built = build.Day.read(day)
    is_partial = day > last_final_day(now)
    with transaction.atomic():
        same = RollupDay.objects.filter(pk=day, changes=before.changes, built_at=before.built_at)
        if same.update(built_changes=before.changes, built_at=now, changed_at=None, is_partial=is_partial):
            if is_sealed(day) or has_purged_rows(built):
                # Raw rows are missing: the users' rows are kept, and only what is computed from them is new.
                replace_activity(day, activity.of_day(day, list(UserDay.objects.filter(day=day))))
            else:
                replace(built)
            return True
    is_built = RollupDay.objects.filter(pk=day, changes=F("built_changes")).exclude(built_at=before.built_at).exists()
    return False if is_built else None


def last_final_day(now: datetime) -> date:
    """Return the last day that is over, and whose turns have had SETTLE_GRACE to settle."""
    return (now.astimezone(UTC) - SETTLE_GRACE).date() - DAY


def is_sealed(day: date) -> bool:
    """Whether raw rows that the day was built of are deleted: its own, or the day before's, whose turns it replays."""
    return RollupDay.objects.filter(day__in=[day, day - DAY], purged_at__isnull=False).exists()


def sealed_to() -> date:
    """Return the last day that is not built again, because raw rows of it or of the day before are deleted."""
    purged = purged_to()
    return purged + DAY if purged else date.min


def purged_to() -> date | None:
    """Return the last day of which raw rows are deleted."""
    last: date | None = RollupDay.objects.filter(purged_at__isnull=False).aggregate(last=Max("day"))["last"]
    return last


def has_purged_rows(built: build.Day) -> bool:
    """Whether rows were deleted by hand: then the rollups are all that is left of them."""
    total = UsageRollup.Grain.TOTAL
    kept = UsageRollup.objects.filter(day=built.day, grain=total).first()
    events = UserDay.objects.filter(day=built.day).aggregate(total=Sum("events"))["total"] or 0
    turns = sum(row.turns for row in built.usage if row.grain == total)
    return (kept is not None and kept.turns > turns) or events > sum(row.events for row in built.users)


def replace(built: build.Day) -> None:
    """Delete and insert all rows of a day. Later days that were computed from it become stale where it has changed."""
    day = built.day
    before = downstream_state(day)
    UsageRollup.objects.filter(day=day).delete()
    UserDay.objects.filter(day=day).delete()
    SessionRollup.objects.filter(built_on=day).delete()
    OpenSession.objects.filter(built_on=day).delete()
    insert(UsageRollup, built.usage)
    insert(UserDay, built.users)
    insert(SessionRollup, built.sessions)
    insert(OpenSession, built.open_sessions)
    replace_activity(day, built.activity)
    set_milestones(day, {row.user_id for row in built.users if row.turns})
    set_sign_ups(day)
    if downstream_state(day) != before:
        # Days that are being read for the first time included. Locked by day, the order of everyone who locks several.
        later = RollupDay.objects.filter(day__gt=day)
        list(later.select_for_update().order_by("day").values_list("day"))
        later.note_change()


def replace_activity(day: date, rows: list[ActivityRollup]) -> None:
    ActivityRollup.objects.filter(day=day).delete()
    insert(ActivityRollup, rows)


def insert(model: type[M], rows: Sequence[M]) -> None:
    """Insert a batch at a time, and let other greenlets run between two of them."""
    for start in taking_breaks(range(0, len(rows), BATCH)):
        model._default_manager.bulk_create(rows[start : start + BATCH])


def downstream_state(day: date) -> set[tuple[object, ...]]:
    """Return what later days are computed from: who was active how often, and the sessions open at the day's end."""
    active = UserDay.objects.filter(day=day, turns__gt=0)
    still_open = OpenSession.objects.filter(built_on=day)
    columns = ("user_id", "client_token_id", "model", "app_version", "first_at", "last_at")
    return {
        *active.values_list("user_id", "client_token_id", "model", "app_version", "turns"),
        *still_open.values_list(*columns),
        *SignUp.objects.filter(day=day).values_list("user_id"),
    }


def set_sign_ups(day: date) -> None:
    """Set who signed in on the day for the first time, and clear those who turn out not to have."""
    found = sums.signed_up(day)
    SignUp.objects.filter(day=day).exclude(user_id__in=found).delete()
    SignUp.objects.bulk_create([SignUp(user_id=user, day=day) for user in set(found)], BATCH, ignore_conflicts=True)
    SignUp.objects.filter(day__gt=day, user_id__in=found).update(day=day)


def set_milestones(day: date, active: set[str]) -> None:
    """Set the milestones that users reached on the day, and clear those that they turn out not to have reached."""
    on_day = UserDay.objects.filter(day=day, turns__gt=0).values("user_id")
    # Whom an active user became by a merge is there since that day as well.
    became = MergedUser.objects.filter(user_id__in=on_day).values("merged_into")
    came = Q(user_id__in=on_day) | Q(user_id__in=became)
    Milestone.objects.filter(first_day=day).exclude(came).delete()
    Milestone.objects.filter(fifth_day=day).update(fifth_day=None)
    if not active:
        return
    Milestone.objects.bulk_create(
        [Milestone(user_id=user, first_day=day) for user in active.union(became.values_list("merged_into", flat=True))],
        BATCH,
        ignore_conflicts=True,
    )
    Milestone.objects.filter(came, first_day__gt=day).update(first_day=day)
    not_yet = Milestone.objects.filter(Q(fifth_day=None) | Q(fifth_day__gt=day), user_id__in=on_day)
    so_far = UserDay.objects.filter(day__lte=day, turns__gt=0, user_id__in=not_yet.values("user_id"))
    reached = so_far.values("user_id").annotate(total=Sum("turns")).filter(total__gte=ACTIVATED_BY)
    Milestone.objects.filter(user_id__in=reached.values("user_id")).update(fifth_day=day)
