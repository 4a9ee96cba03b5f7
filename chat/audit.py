"""Who of the staff has read users' messages, and who has exported data."""

from typing import Any

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db import models
from django.utils import timezone

READ_MESSAGES = "chat.read_messages"


class AuditRecord(models.Model):
    """A member of the staff has read or exported something.

    Django's LogEntry does not serve: it is about changes, is deleted with its user, and is written afterwards. Ids are
    plain columns: a record outlives the person and the conversation that it is about.
    """

    class Action(models.TextChoices):
        READ = "read"
        EXPORTED = "exported"

    staff_id = models.BigIntegerField()
    staff_name = models.CharField("who", max_length=150)
    action = models.CharField(max_length=16, choices=Action)
    subject = models.CharField("of", max_length=64, help_text="A table.")
    subject_id = models.CharField("which", max_length=320, blank=True, help_text="The row; empty for an export.")
    detail = models.TextField(blank=True, help_text="Of an export its filters, of a thread its page.")
    created_at = models.DateTimeField("when", default=timezone.now)

    class Meta:
        db_table = "audit_records"
        indexes = [
            # Who has read this conversation?
            models.Index(fields=["subject_id", "id"], name="audit_subject"),
        ]
        constraints = [
            models.CheckConstraint(condition=models.Q(action__in=["read", "exported"]), name="audit_action_known"),
        ]

    def __str__(self) -> str:
        return f"{self.staff_name} {self.action} {self.subject} {self.subject_id}"


Action = AuditRecord.Action


def may_read(user: AbstractBaseUser | AnonymousUser) -> bool:
    """Tell whether prompts, replies and metadata may be shown to this member of the staff."""
    return bool(getattr(user, "has_perm", lambda _: False)(READ_MESSAGES))


def record(user: Any, action: AuditRecord.Action, subject: str, subject_id: str = "", detail: str = "") -> None:
    """Store a record. To be called before the data is shown."""
    AuditRecord.objects.create(
        staff_id=user.pk,
        staff_name=user.get_username(),
        action=action,
        subject=subject,
        subject_id=subject_id,
        detail=detail,
    )
