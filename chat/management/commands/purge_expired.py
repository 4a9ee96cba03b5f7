from typing import Any

from django.core.management.base import BaseCommand
from django.utils import timezone

from chat import retention


class Command(BaseCommand):
    help = "Delete what is past its use: idempotency keys after 24 hours, limits that are at rest, old sessions."

    def handle(self, *args: Any, **options: Any) -> None:
        for what, deleted in retention.purge_expired(timezone.now()).items():
            self.stdout.write(f"{deleted} {what} deleted.")
