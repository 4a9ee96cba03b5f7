"""Whether the server's background jobs keep up."""

from collections.abc import Iterator
from datetime import timedelta

from django.db.models.functions import Now
from django.utils import timezone

from analytics.models import UsageEvent
from analytics.rollups import schedule
from chat import background
from chat.models import Chore
from llmapi.doctor.findings import Finding

# Jobs tick every ten seconds, and a long one lets others wait.
JOB_GRACE = timedelta(minutes=10)
TURN_GRACE = timedelta(minutes=5)


def examine_jobs() -> Iterator[Finding]:
    late = Chore.objects.filter(name__in=background.JOBS, due_at__lt=Now() - JOB_GRACE).order_by("due_at")
    if names := list(late.values_list("name", flat=True)):
        since = late.values_list("due_at", flat=True)[0]
        hint = "Start the server, or see in its log what holds them."
        yield Finding("background jobs", f"{', '.join(names)} are due since {since:%Y-%m-%d %H:%M} UTC", hint)


def examine_pending() -> Iterator[Finding]:
    if count := UsageEvent.objects.pending().filter(locked_until__lt=Now() - TURN_GRACE).count():
        hint = "Start the server, which closes them, or run manage.py settle_abandoned."
        yield Finding("turns", f"{count} are pending whose process died", hint)


def examine_rollups() -> Iterator[Finding]:
    """Find days that ended long ago and are in no figure. The last one may wait for its turn."""
    days = schedule.due(timezone.now() - timedelta(hours=6))
    if days:
        hint = "Start the server, which builds them, or run manage.py rollup."
        yield Finding("figures", f"{len(days)} days have no rollups, the first {days[0]}", hint)
