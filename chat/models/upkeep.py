"""What the server does and knows for itself."""

from django.db import models


class Chore(models.Model):
    """When a background job is due. Any process may run it, and one at a time does."""

    name = models.CharField(primary_key=True, max_length=64)
    due_at = models.DateTimeField()

    class Meta:
        db_table = "chores"

    def __str__(self) -> str:
        return self.name


class UpstreamModel(models.Model):
    """A model that this server asks for, as its provider listed it when it was last asked."""

    name = models.CharField(primary_key=True, max_length=100)
    shutdown_date = models.DateField(null=True, blank=True, help_text="Empty: the provider names no day.")
    asked_at = models.DateTimeField()

    class Meta:
        db_table = "upstream_models"

    def __str__(self) -> str:
        return self.name
