from typing import Any

from gunicorn.glogging import Logger

from llmapi import settings
from llmapi.log_formats import FORMATTERS


class ServerLogger(Logger):
    """gunicorn's log in the format of ours."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for handler in (*self.error_log.handlers, *self.access_log.handlers):
            handler.setFormatter(FORMATTERS[settings.LOG_FORMAT]())
