import sys
import zlib
from array import array
from base64 import b64encode
from bisect import bisect_left
from itertools import accumulate
from math import ceil
from typing import Any

from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps

COLUMNS = {
    "UsageRollup": ["latency_ms", "first_token_ms"],
    "ActivityRollup": ["time_spent"],
    "SessionRollup": ["seconds"],
}


def rewrite(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """A dense histogram was a list of its first place and all counts from there on."""
    for name, columns in COLUMNS.items():
        model = apps.get_model("analytics", name)
        batch = []
        for row in model.objects.only("pk", *columns).iterator(500):
            dense = [column for column in columns if isinstance(getattr(row, column), list)]
            for column in dense:
                setattr(row, column, as_digits(*getattr(row, column)))
            if dense:
                batch.append(row)
            if len(batch) == 500:
                model.objects.bulk_update(batch, columns)
                batch.clear()
        model.objects.bulk_update(batch, columns)


def as_digits(first: int, *counts: int) -> dict[str, Any]:
    packed = array("I", counts)
    if sys.byteorder == "big":
        packed.byteswap()
    seen = list(accumulate(counts))
    percentiles = [value_at(first + bisect_left(seen, ceil(seen[-1] * rank / 100))) for rank in (50, 90, 95, 99)]
    digits = b64encode(zlib.compress(packed.tobytes())).decode()
    return {"first": first, "digits": digits, "total": seen[-1], "percentiles": percentiles}


def value_at(place: int) -> int:
    power = max(0, (place - 100) // 900)
    return (place - 900 * power) * 10**power


class Migration(migrations.Migration):

    dependencies = [
        ('analytics', '0012_changed_at'),
    ]

    operations = [
        migrations.RunPython(rewrite, migrations.RunPython.noop),
    ]
