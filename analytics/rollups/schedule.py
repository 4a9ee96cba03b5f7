"""Rollups of closed days: kept whole, a day at a time, so that each raw row counts once by construction.

A day's rows are read and added up outside of any transaction, and then replace what was there in one short one.
That one begins by claiming the day's row in `rollup_days`, with the number of changes that was found there before
reading: it fails where somebody has changed a raw row of the day since, or has built the day, and is done again.
Whoever changes a raw row of a day that is over says so with `mark_changed`, inside the same transaction.

A day that goes on is read from its raw rows. Where these are many, it is built every few minutes before it is over
(`is_partial`), so that no reader has to add up half a day, and once more when it is.
"""

import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

from django.db import OperationalError, transaction
from django.db.models import F, Max, Q, Sum
from django.db.models.functions import Now

from analytics.ledger import sums as aggregates
from analytics.ledger import turns as recording
from analytics.models import ActivityRollup, Milestone, OpenSession, RollupDay, SessionRollup, UsageRollup, UserDay
from analytics.query import ALL, DAY, Window, days_between
from analytics.rollups import activity, build

# From so many events on, a day that goes on is built.
MANY = 5000
REFRESH = timedelta(minutes=5)
# Clients send what they saw yesterday all day long: a day is not built again for each of them.
PAUSE = timedelta(minutes=15)
# How long the server's chore builds before it lets other chores run.
CHORE_SECONDS = 10
# Rows a statement: a few dozen milliseconds of work.
BATCH = 250
# How often a day is read without a lock before it is read with one.
TRIES = 3
ACTIVATED_BY = 5


def run_due(now: datetime) -> int:
    """Build what is due, for a while; how many days."""
    deadline = time.monotonic() + CHORE_SECONDS
    built = 0
    just_built = RollupDay.objects.built().filter(built_at__gt=now - PAUSE).values_list("day", flat=True)
    stale = [day for day in due(now) if day not in set(just_built)]
    for day in [*stale, *large(now)]:
        if time.monotonic() >= deadline:
            break
        built += build_day(day)
    return built


def large(now: datetime) -> list[date]:
    """Days that go on and have many rows, with those before them, unless they were built a moment ago.

    Where the day before has many, a day has so from its beginning: its users are compared with those of a month.
    """
    first, last = last_closed(now) + DAY, now.astimezone(UTC).date()
    days = list(days_between(first, last))
    while days and not has_many_rows(days[-1]) and not has_many_rows(days[-1] - DAY):
        days.pop()
    built = RollupDay.objects.built().filter(day__gte=first, built_at__gt=now - REFRESH)
    recent = set(built.values_list("day", flat=True))
    return [day for day in days if day not in recent]


def has_many_rows(day: date) -> bool:
    return aggregates.event_rows(Window(day, day), ALL)[MANY - 1 : MANY].exists()


def due(now: datetime) -> list[date]:
    """Days that are over and have no rollups, or stale ones, in their order: each goes on from the one before."""
    stale = RollupDay.objects.stale().filter(day__lte=last_closed(now))
    return sorted({*missing(now), *stale.values_list("day", flat=True)})


def to_build(now: datetime, first: date | None, last: date | None, *, rebuild: bool) -> list[date]:
    """What is due up to `last`, and where asked, what was built from `first` on and can be built again."""
    last = min(last or last_closed(now), last_closed(now))
    built = RollupDay.objects.built().filter(day__gte=first or date.min) if rebuild else RollupDay.objects.none()
    again = built.filter(day__gt=sealed_to()).values_list("day", flat=True)
    return sorted(day for day in {*due(now), *again} if day <= last)


def sealed_to() -> date:
    """The last day that is not built again, because raw rows of it or of the day before are deleted."""
    purged = purged_to()
    return purged + DAY if purged else date.min


def purged_to() -> date | None:
    """The last day of which raw rows are deleted."""
    last: date | None = RollupDay.objects.filter(purged_at__isnull=False).aggregate(last=Max("day"))["last"]
    return last


def missing(now: datetime) -> Iterator[date]:
    built = set(RollupDay.objects.built().values_list("day", flat=True))
    # A client's event may be older than the first day that was built.
    first = min((day for day in (*built, build.oldest_day()) if day), default=None)
    last = last_closed(now)
    return (day for day in days_between(first, last) if day not in built) if first else iter(())


def last_closed(now: datetime) -> date:
    return (now.astimezone(UTC) - recording.SETTLING).date() - DAY


def build_day(day: date) -> bool:
    """Read a day's raw rows and replace its rollups; False where another process was faster."""
    RollupDay.objects.bulk_create([RollupDay(day=day)], ignore_conflicts=True)
    for _ in range(TRIES):
        try:
            outcome = try_to_build(day)
        except OperationalError:
            # A deadlock, with another builder's users: whoever is told of it has lost nothing, and goes second.
            continue
        if outcome is not None:
            return outcome
    with transaction.atomic():
        # Its rows change faster than they are read: this once, who changes them waits for the row's lock.
        RollupDay.objects.filter(pk=day).update(changes=F("changes"))
        return bool(try_to_build(day))


def try_to_build(day: date) -> bool | None:
    """None where the day's rows have changed since they were read."""
    # By the database's clock, which all nodes share.
    now = RollupDay.objects.annotate(now=Now()).values_list("now", flat=True).get(pk=day)
    before = RollupDay.objects.get(pk=day)
    built = build.Day.read(day)
    with transaction.atomic():
        if claim(before, at=now):
            if is_sealed(day) or has_purged_rows(built):
                # Its users' rows are kept, and all that these rollups come of.
                replace_activity(day, activity.of_day(day, list(UserDay.objects.filter(day=day))))
            else:
                replace(built)
            return True
    is_built = RollupDay.objects.filter(pk=day, changes=F("built_changes")).exclude(built_at=before.built_at).exists()
    return False if is_built else None


def claim(before: RollupDay, *, at: datetime) -> bool:
    """Take the day's row lock; False where anything has happened since it was `before`."""
    same = RollupDay.objects.filter(pk=before.pk, changes=before.changes, built_at=before.built_at)
    is_partial = before.day > last_closed(at)
    return bool(same.update(built_changes=before.changes, built_at=at, changed_at=None, is_partial=is_partial))


def is_sealed(day: date) -> bool:
    """Raw rows that the day was built of are being deleted: its own, or those of the day before, to count replays."""
    return RollupDay.objects.filter(day__in=[day, day - DAY], purged_at__isnull=False).exists()


def has_purged_rows(built: build.Day) -> bool:
    """Rows were deleted by hand: the rollups are all that is left of them."""
    kept = UsageRollup.objects.filter(day=built.day, grain=UsageRollup.Grain.TOTAL).first()
    events = UserDay.objects.filter(day=built.day).aggregate(total=Sum("events"))["total"] or 0
    return (kept is not None and kept.turns > built.turns) or events > built.events


def replace(built: build.Day) -> None:
    """Delete and insert all of a day; what later days go on from makes those stale where it has changed."""
    day = built.day
    before = continued(day)
    UsageRollup.objects.filter(day=day).delete()
    UserDay.objects.filter(day=day).delete()
    SessionRollup.objects.filter(built_on=day).delete()
    OpenSession.objects.filter(built_on=day).delete()
    UsageRollup.objects.bulk_create(built.usage, BATCH)
    UserDay.objects.bulk_create(built.users, BATCH)
    SessionRollup.objects.bulk_create(built.sessions, BATCH)
    OpenSession.objects.bulk_create(built.open_sessions, BATCH)
    replace_activity(day, built.activity)
    set_milestones(day, built.active)
    if continued(day) != before:
        # Those too that somebody is reading now, for the first time. Locked in the order of all who lock several.
        later = RollupDay.objects.filter(day__gt=day)
        list(later.select_for_update().order_by("day").values_list("day"))
        later.note_change()


def replace_activity(day: date, rows: list[ActivityRollup]) -> None:
    ActivityRollup.objects.filter(day=day).delete()
    ActivityRollup.objects.bulk_create(rows, BATCH)


def continued(day: date) -> set[tuple[object, ...]]:
    """What later days depend on: who was active how often, and the sessions that were open at the end."""
    active = UserDay.objects.filter(day=day, turns__gt=0)
    still_open = OpenSession.objects.filter(built_on=day)
    columns = ("user_id", "client_token_id", "model", "app_version", "first_at", "last_at")
    return {
        *active.values_list("user_id", "client_token_id", "model", "app_version", "turns"),
        *still_open.values_list(*columns),
    }


def set_milestones(day: date, active: set[str]) -> None:
    """Those that users reached on the day, and no longer those that they turn out not to have."""
    on_day = UserDay.objects.filter(day=day, turns__gt=0).values("user_id")
    Milestone.objects.filter(first_day=day).exclude(user_id__in=on_day).delete()
    Milestone.objects.bulk_create(
        [Milestone(user_id=user, first_day=day) for user in active], BATCH, ignore_conflicts=True
    )
    Milestone.objects.filter(first_day__gt=day, user_id__in=on_day).update(first_day=day)
    Milestone.objects.filter(fifth_day=day).update(fifth_day=None)
    not_yet = Milestone.objects.filter(Q(fifth_day=None) | Q(fifth_day__gt=day), user_id__in=on_day)
    so_far = UserDay.objects.filter(day__lte=day, turns__gt=0, user_id__in=not_yet.values("user_id"))
    reached = so_far.values("user_id").annotate(total=Sum("turns")).filter(total__gte=ACTIVATED_BY)
    Milestone.objects.filter(user_id__in=reached.values("user_id")).update(fifth_day=day)
