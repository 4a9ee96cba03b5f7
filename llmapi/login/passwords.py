"""How long a password may be."""

from typing import Any

from django.core.exceptions import ValidationError

# Nobody types more, and a login looks at no longer one.
MAX_PASSWORD = 1024


class MaximumLengthValidator:
    """Refuse a new password that the login would refuse."""

    def validate(self, password: str, user: Any = None) -> None:
        if len(password) > MAX_PASSWORD:
            raise ValidationError(self.get_help_text(), code="password_too_long")

    def get_help_text(self) -> str:
        return f"Your password must contain at most {MAX_PASSWORD:,} characters."
