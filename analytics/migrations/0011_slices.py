from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps
from django.db.models import F


def build_again(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Rollups of users by several of client, model and version come with the next build of each day."""
    days = apps.get_model("analytics", "RollupDay").objects.filter(built_at__isnull=False)
    days.update(changes=F("changes") + 1)


class Migration(migrations.Migration):

    dependencies = [
        ('analytics', '0010_served_model'),
    ]

    operations = [
        migrations.RunPython(build_again, migrations.RunPython.noop),
    ]
