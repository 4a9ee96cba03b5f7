from typing import Any

from rest_framework.metadata import BaseMetadata
from rest_framework.request import Request


class NoMetadata(BaseMetadata):
    """Answers OPTIONS with the `Allow` header alone: /schema describes the routes."""

    def determine_metadata(self, request: Request, view: Any) -> None:
        return None
