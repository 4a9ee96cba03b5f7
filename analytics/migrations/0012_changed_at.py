from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps
from django.db.models import F
from django.db.models.functions import Now


def build_again(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Who is back counts for the client, model and version of the user's first day, from the next build of each on."""
    days = apps.get_model("analytics", "RollupDay").objects.filter(built_at__isnull=False)
    days.update(changes=F("changes") + 1, changed_at=Now())


class Migration(migrations.Migration):

    dependencies = [
        ('analytics', '0011_slices'),
    ]

    operations = [
        migrations.AddField(
            model_name='rollupday',
            name='changed_at',
            field=models.DateTimeField(blank=True, help_text='Of the first change since it was read.', null=True),
        ),
        migrations.RunPython(build_again, migrations.RunPython.noop),
    ]
