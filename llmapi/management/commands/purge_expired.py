from collections import Counter
from typing import Any

from django.core.management.base import BaseCommand
from django.utils import timezone

from analytics.ledger import retention as purge
from analytics.management.progress import track
from chat import retention


class Command(BaseCommand):
    help = (
        "Delete what is past its use: idempotency keys after 24 hours, limits that are at rest, old sessions; "
        "and usage and analytics events after RAW_RETENTION_DAYS. The server does so, too."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        now = timezone.now()
        deleted = Counter({**retention.purge_expired(now), **dict.fromkeys(purge.TABLES, 0)})
        try:
            for day in track(purge.expired(now), "Days"):
                for what, count in purge.purge_day(day):
                    deleted[what] += count
        except purge.NotYet as exc:
            self.stderr.write(f"Raw rows are kept: {exc}")
        for what, count in deleted.items():
            self.stdout.write(f"{count} {what} deleted.")
