"""httpx2 over urllib3's connections. httpx2's own pool looks at all its connections at each request."""

import contextlib
import threading
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

import httpx2
import urllib3
from urllib3.exceptions import HTTPError, ProtocolError, ReadTimeoutError
from urllib3.util import parse_url

from chat.upstream.connections import Connection, Pool, SecurePool
from chat.upstream.proxies import proxy_of

READ_BYTES = 16 * 1024
# How long the end of an answer may come after its last event.
END_SECONDS = 0.05
NO_RETRIES = urllib3.Retry(False, redirect=False)
# Addresses are few: parsing one takes longer than sending a request to it.
parsed = lru_cache(maxsize=64)(httpx2.URL)


class Client(httpx2.Client):
    """An httpx2 client that builds a request with a body from what it is given, without merging settings into it."""

    def build_request(
        self, method: str, url: httpx2.URL | str, *, content: Any = None, headers: Any = None, **more: Any
    ) -> httpx2.Request:
        timeout = more.pop("timeout", None)
        if not isinstance(content, bytes) or timeout is None or any(value is not None for value in more.values()):
            return super().build_request(method, url, content=content, headers=headers, timeout=timeout, **more)
        address = parsed(url)
        own = [
            ("Host", address.netloc.decode("ascii")),
            ("Accept-Encoding", self.headers["Accept-Encoding"]),
            ("Content-Length", str(len(content))),
        ]
        return httpx2.Request(method, address, headers=own + headers, stream=httpx2.ByteStream(content))


class Transport(httpx2.BaseTransport):
    """Sends requests as `httpx2.HTTPTransport` does, through the proxies that the environment names."""

    def __init__(self) -> None:
        self._trust = httpx2.create_ssl_context()
        self._pools: dict[tuple[str, bytes], tuple[urllib3.HTTPConnectionPool, bool]] = {}
        self._lock = threading.Lock()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request, and return its answer, not yet read. Its time is that of `deadlines.current`.

        Raises httpx2's errors. Those of a call that was not sent are ConnectError and ConnectTimeout.
        """
        pool, is_forwarded = self._pool_of(request.url)
        with httpx2_errors():
            answer = pool.urlopen(
                request.method,
                str(request.url) if is_forwarded else request.url.raw_path.decode("ascii"),
                body=request.read(),
                headers={name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers.raw},
                retries=NO_RETRIES,
                redirect=False,
                assert_same_host=False,
                preload_content=False,
            )
        assert isinstance(answer, urllib3.HTTPResponse)
        assert isinstance(answer.connection, Connection)
        body: httpx2.SyncByteStream = Body(answer, answer.connection)
        if 300 <= answer.status < 400:
            # httpx2 would read all of it, however much comes, before it follows.
            body.close()
            body = httpx2.ByteStream(b"")
        return httpx2.Response(answer.status, headers=list(answer.headers.items()), stream=body)

    def close(self) -> None:
        """Close what is idle."""
        for pool, _ in list(self._pools.values()):
            pool.close()

    def _pool_of(self, url: httpx2.URL) -> tuple[urllib3.HTTPConnectionPool, bool]:
        """Return the connections that a request takes, and whether they lead to a proxy that forwards it."""
        key = (url.scheme, url.netloc)
        if key not in self._pools:
            with self._lock:
                if key not in self._pools:
                    self._pools[key] = self._new_pool(url)
        return self._pools[key]

    def _new_pool(self, url: httpx2.URL) -> tuple[urllib3.HTTPConnectionPool, bool]:
        if url.scheme not in {"http", "https"}:
            raise httpx2.UnsupportedProtocol(f"Request URL has an unsupported protocol '{url.scheme}://'.")
        # A pool of size zero keeps any number of idle connections.
        settings: dict[str, Any] = {"maxsize": 0, "ssl_context": self._trust}
        manager: urllib3.PoolManager
        if found := proxy_of(url.scheme, url.host):
            _, proxy = found
            address = proxy if "://" in proxy else f"http://{proxy}"
            manager = urllib3.ProxyManager(address, proxy_headers=credentials(address), **settings)
        else:
            manager = urllib3.PoolManager(**settings)
        manager.pool_classes_by_scheme = {"http": Pool, "https": SecurePool}
        pool = manager.connection_from_host(url.host, url.port, url.scheme)
        return pool, bool(found) and url.scheme == "http"


def credentials(proxy: str) -> Mapping[str, str]:
    """Return the header with the name and the password in a proxy's address."""
    login = parse_url(proxy).auth
    return urllib3.make_headers(proxy_basic_auth=unquote(login)) if login else {}


class Body(httpx2.SyncByteStream):
    """The body of an answer, as it comes, and the connection that carries it."""

    def __init__(self, answer: urllib3.HTTPResponse, connection: Connection) -> None:
        self._answer = answer
        self._connection = connection
        self._deadline = connection.deadline

    def __iter__(self) -> Iterator[bytes]:
        with httpx2_errors():
            while piece := self._answer.read1(READ_BYTES, decode_content=False):
                yield piece

    def close(self) -> None:
        """Let the next call have the connection if the answer has been read to its end, or ends at once."""
        if not self._answer.closed and not self._connection.is_closed:
            with contextlib.suppress(HTTPError), self._deadline.within(END_SECONDS):
                self._answer.read1(READ_BYTES, decode_content=False)
        self._answer.close()


@contextlib.contextmanager
def httpx2_errors() -> Iterator[None]:
    """Raise urllib3's errors of a call that may have been sent as httpx2's."""
    try:
        yield
    except ReadTimeoutError as exc:
        raise httpx2.ReadTimeout(str(exc)) from exc
    except ProtocolError as exc:
        cause = exc.__cause__ or exc.args[-1]
        if isinstance(cause, TimeoutError):
            raise httpx2.WriteTimeout(str(exc)) from exc
        raise (httpx2.ReadError if isinstance(cause, OSError) else httpx2.RemoteProtocolError)(str(exc)) from exc
    except HTTPError as exc:
        raise httpx2.ReadError(str(exc)) from exc
