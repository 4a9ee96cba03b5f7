from collections import Counter
from typing import Any

from django.utils import timezone

from analytics.ledger import retention as event_retention
from analytics.management.base import OperatorCommand
from analytics.management.progress import track
from chat import retention as chat_retention


class Command(OperatorCommand):
    group = "Data"
    examples = ("",)
    help = (
        "Delete expired rows. They are idempotency keys after 24 hours, unused rate limits, old sessions, "
        "and usage and analytics events after RAW_RETENTION_DAYS. The server does the same by itself."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        now = timezone.now()
        deleted = Counter({**chat_retention.purge_expired(now), **dict.fromkeys(event_retention.TABLES, 0)})
        try:
            for day in track(event_retention.expired(now), "Days"):
                for name, count in event_retention.purge_day(day):
                    deleted[name] += count
        except event_retention.NotYet as exc:
            self.stderr.write(f"Raw rows are kept: {exc}")
        for name, count in deleted.items():
            self.stdout.write(f"{count} {name} deleted.")
