from typing import Any

from django.core.management.base import CommandError
from django.db import OperationalError, connection
from django.utils import timezone

from analytics.ledger import partitions
from analytics.management.base import OperatorCommand


class Command(OperatorCommand):
    group = "Data"
    examples = ("",)
    help = (
        "Part the ledger by month, in place, while the server runs (PostgreSQL). "
        "RAW_RETENTION_DAYS then drops whole months instead of deleting rows."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        if connection.vendor != "postgresql":
            raise CommandError("Only PostgreSQL has partitions; the tables of this database stay as they are.")
        now = timezone.now()
        if partitions.is_partitioned():
            self.stdout.write(f"The ledger is partitioned; {partitions.add_months(now)} months added.")
            return
        try:
            partitions.partition(now)
        except OperationalError as exc:
            raise CommandError(f"Nothing is partitioned; run it again when the tables are less busy. {exc}") from exc
        self.stdout.write(f"The ledger is partitioned: {', '.join(partitions.partitions(partitions.TABLES[0]))}.")
