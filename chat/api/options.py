from typing import Any

from rest_framework.metadata import BaseMetadata
from rest_framework.request import Request


class NoMetadata(BaseMetadata):
    """OPTIONS is answered by its `Allow` header; what a route takes is told by /schema."""

    def determine_metadata(self, request: Request, view: Any) -> None:
        return None
