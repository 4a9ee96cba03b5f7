from django.db import migrations, models


def add_column(name: str, definition: str, field: "models.Field[object, object]") -> migrations.SeparateDatabaseAndState:
    """Add a column with a constant default, which neither database writes into the rows that are there.

    Django itself would copy the whole table on SQLite, with all its indexes.
    """
    return migrations.SeparateDatabaseAndState(
        [
            migrations.RunSQL(
                f'ALTER TABLE usage_events ADD COLUMN "{name}" {definition}',
                f'ALTER TABLE usage_events DROP COLUMN "{name}"',
            )
        ],
        [migrations.AddField("usageevent", name, field)],
    )


class Migration(migrations.Migration):

    dependencies = [
        ('analytics', '0014_new_users'),
    ]

    operations = [
        add_column(
            "cache_write_tokens",
            'integer DEFAULT 0 NOT NULL CHECK ("cache_write_tokens" >= 0)',
            models.PositiveIntegerField(
                db_default=0, default=0, help_text="Of the prompt tokens, those billed as written to the cache."
            ),
        ),
        add_column(
            "service_tier",
            "varchar(20) DEFAULT '' NOT NULL",
            models.CharField(
                blank=True,
                db_default="",
                default="",
                help_text="As the answer named it; its price is paid.",
                max_length=20,
            ),
        ),
    ]
