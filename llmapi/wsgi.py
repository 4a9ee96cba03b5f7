import os
from typing import Any

import django
from django.conf import settings
from django.core.handlers.wsgi import LimitedStream, WSGIHandler, WSGIRequest

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llmapi.settings")


class ChunkedInput:
    """A body in chunks as gunicorn reads it. Whatever is wrong with the chunks is an OSError, as Django expects it."""

    def __init__(self, chunks: Any) -> None:
        self.chunks = chunks

    def read(self, size: int) -> bytes:
        return self.attempt(self.chunks.read, size)

    def readline(self, size: int) -> bytes:
        return self.attempt(self.chunks.readline, size)

    def attempt(self, read: Any, size: int) -> bytes:
        try:
            data: bytes = read(size)
        except TimeoutError:
            raise
        except Exception as exc:  # of gunicorn, which has no class for all of them but Exception
            raise OSError("The chunks of the body cannot be read.") from exc
        return data


class ChunkedRequest(WSGIRequest):
    """Reads a body without a length where the server marks its end, lazily and one byte beyond the limit at most.

    Django itself reads nothing without a Content-Length. The byte beyond tells that the body is too long.
    """

    def __init__(self, environ: dict[str, Any]) -> None:
        super().__init__(environ)
        is_chunked = "chunked" in environ.get("HTTP_TRANSFER_ENCODING", "").lower()
        if is_chunked and environ.get("wsgi.input_terminated"):
            chunks: Any = ChunkedInput(environ["wsgi.input"])
            most = settings.MAX_REQUEST_BYTES if self.path_info.startswith("/v1/") else settings.MAX_FORM_BYTES
            self._stream: Any = LimitedStream(chunks, most + 1)


class Handler(WSGIHandler):
    request_class = ChunkedRequest

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        if below := settings.FORCE_SCRIPT_NAME:
            # Some proxies take the path that they offer this server below from the request's, and some pass it on.
            # Probes ask past the proxy.
            environ["SCRIPT_NAME"] = below
            if f"{environ['PATH_INFO']}/".startswith(f"{below}/"):
                environ["PATH_INFO"] = environ["PATH_INFO"][len(below) :]
        return super().__call__(environ, start_response)


django.setup(set_prefix=False)
application = Handler()
