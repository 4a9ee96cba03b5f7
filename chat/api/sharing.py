"""What one client may take of what all requests of this process share: connections, memory, turns of the processor.

A client is known by its token once the token has been accepted. Everybody else, with no token or a wrong one, is one
owner together: whoever invents names gets no more than who has none.
"""

import json
import re
from collections import OrderedDict
from collections.abc import Callable
from contextlib import ExitStack
from io import BytesIO
from typing import Any

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse, JsonResponse, UnreadablePostError
from django.http.response import HttpResponseBase
from rest_framework.request import Request
from rest_framework.response import Response

from analytics.fairness import Busy, Owner, Share, working
from analytics.processor import MAX_REQUESTS, PATIENCE, processor
from chat.api.renderers import error_message
from chat.exceptions import ApiError, LengthRequired, RequestTimeout, RequestTooLarge, Unavailable, error_body
from chat.models import ClientToken

# Large bodies of one client that may wait.
MAX_LARGE_WAITING = 16
# Bytes. Larger bodies are worked on one at a time, and larger answers are counted.
LARGE = 64 * 1024

requests = Share(lambda: MAX_REQUESTS, factor=8)
large = Share(lambda: 1, patience=5 * PATIENCE, most_waiting=MAX_LARGE_WAITING)
# Bytes that are held for clients: bodies until their request has been answered, and answers until they have been sent.
memory = Share(lambda: max(8 * settings.MAX_REQUEST_BYTES, 2048 * LARGE), patience=PATIENCE, most_waiting=MAX_REQUESTS)

BUSY = "The server is at its limit; send the request again in a moment."
STRANGER = "a stranger"
# The owner of probes: a flood of other requests must not make a balancer think that the process is dead.
PROBE = "a probe"
PROBES = {"/health", "/ready"}
PROBE_HEADS = tuple(f"GET {path} ".encode() for path in PROBES)
TOKEN_IN_HEAD = re.compile(rb"\r\n(?:authorization: *bearer|(?:x-)?api-key:) *([^\s]+)", re.IGNORECASE)
SESSION_IN_HEAD = re.compile(
    rb"\r\ncookie:[^\r]*\b%s=([^;\s]+)" % re.escape(settings.SESSION_COOKIE_NAME.encode()), re.IGNORECASE
)
# Owners that stand for many.
CROWDS = {STRANGER, PROBE}
MAX_KNOWN = 10_000
# Of a Content-Length. Python takes longer for a number the more digits it has.
MAX_DIGITS = 12


class Credentials:
    """Digests of credentials that were accepted, and whose they are. The one used longest ago is forgotten first."""

    def __init__(self) -> None:
        self._owners: OrderedDict[str, Owner] = OrderedDict()

    def owner_of(self, digest: str) -> Owner:
        if (owner := self._owners.get(digest)) is None:
            return STRANGER
        self._owners.move_to_end(digest)
        return owner

    def accept(self, digest: str, owner: Owner) -> None:
        self._owners[digest] = owner
        if len(self._owners) > MAX_KNOWN:
            self._owners.popitem(last=False)

    def refuse(self, digest: str) -> None:
        self._owners.pop(digest, None)


credentials = Credentials()


def owner_of(request: HttpRequest) -> Owner:
    """Tell who asks, before anything is looked up."""
    path = request.path_info
    if path in PROBES:
        return PROBE
    if token := token_of(request):
        return credentials.owner_of(ClientToken.digest_of(token))
    if session := request.COOKIES.get(settings.SESSION_COOKIE_NAME):
        return credentials.owner_of(ClientToken.digest_of(session))
    return STRANGER


def busy_answer() -> bytes:
    """Make the whole answer to a head that found no turn to be parsed: nothing is known of what it wants."""
    body = json.dumps(error_body(503, BUSY, Unavailable.default_code)).encode()
    head = (
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


def owner_of_head(head: bytes) -> Owner:
    """Tell who asks from the bytes of a head, of which some may be missing: whose turn it is to parse it."""
    if head.startswith(PROBE_HEADS):
        return PROBE
    for pattern in (TOKEN_IN_HEAD, SESSION_IN_HEAD):
        if found := pattern.search(head):
            return credentials.owner_of(ClientToken.digest_of(found[1].decode("latin-1")))
    return STRANGER


def token_of(request: HttpRequest) -> str:
    """Return the token of a request; "" where it has none, or its Authorization is of another kind.

    Without that header it looks for the token in those of Azure's and Anthropic's SDKs.
    """
    sent = request.META.get("HTTP_AUTHORIZATION", "")
    if not sent:
        return str(request.META.get("HTTP_API_KEY") or request.META.get("HTTP_X_API_KEY") or "").strip()
    scheme, _, token = sent.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


class SharingMiddleware:
    """Let a request work when its owner has a turn, and tell it that the server is busy where there is none in time."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        owner = owner_of(request)
        held = Held(owner)
        request.held = held  # type: ignore[attr-defined]
        if connection := request.META.get("gunicorn.socket"):
            connection.belong_to(owner)
        try:
            with working(processor, owner) as is_in_time:
                # To refuse is work as well, and done in turn.
                return self._answer(request, held) if is_in_time else busy(request)
        except Busy:
            return busy(request)

    def _answer(self, request: HttpRequest, held: "Held") -> HttpResponseBase:
        try:
            with held.until_sent:
                held.hold(requests)
                with held.while_working:
                    response = self.get_response(request)
                if isinstance(response, HttpResponse) and (size := len(response.content)) > LARGE:
                    # What has been done is told, however much is held.
                    held.hold(memory, size, is_forced=request.method not in {"GET", "HEAD"})
                    if isinstance(response, Response):
                        # As long as it is written, what it was written from would be held as well.
                        response.data = None
                held.keep_until_sent(response)
        except Busy:
            return busy(request)
        self._know_staff(request)
        return response

    def _know_staff(self, request: HttpRequest) -> None:
        """Note whose session it is, where a page has looked that up."""
        user = getattr(request, "_cached_user", None)
        if (
            user is not None
            and user.is_authenticated
            and (session := request.COOKIES.get(settings.SESSION_COOKIE_NAME))
        ):
            credentials.accept(ClientToken.digest_of(session), f"staff:{user.pk}")


class Held:
    """What a request holds while it is worked on, and what until its answer has been sent."""

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self.while_working = ExitStack()
        self.until_sent = ExitStack()

    def hold(self, share: Share, amount: int = 1, *, owner: Owner = None, is_forced: bool = False) -> None:
        """Raises Busy where there is not enough of the share in time."""
        owner = self.owner if owner is None else owner
        (share.force if is_forced else share.take)(owner, amount)
        self.until_sent.callback(share.give_back, owner, amount)

    def keep_until_sent(self, response: HttpResponseBase) -> None:
        # Django calls these when the server closes the answer, whether or not it was sent whole.
        response._resource_closers.append(self.until_sent.pop_all().close)  # type: ignore[attr-defined]


def receive(request: Request) -> None:
    """Read the body before anything is asked of the database. Large bodies are worked on one at a time.

    Raises ApiError.
    """
    http: HttpRequest = request._request
    if not (length := length_of(http, settings.MAX_REQUEST_BYTES)):
        return
    held: Held = http.held  # type: ignore[attr-defined]
    owner = request.auth.holder if isinstance(request.auth, ClientToken) else held.owner
    # A small body counts as well while it comes: it keeps a connection.
    amount = max(length, LARGE)
    try:
        with memory.held(owner, amount):
            size = len(read_body(http, settings.MAX_REQUEST_BYTES))
        if size > LARGE:
            held.hold(memory, size, owner=owner, is_forced=True)
            # In the client's own turn: to free 400,000 objects takes a while.
            held.while_working.callback(forget_body, request)
            if not held.while_working.enter_context(working(large, owner)):
                raise Busy
    except Busy as exc:
        raise Unavailable(BUSY) from exc


def forget_body(request: Request) -> None:
    """Let go of a body and of what was read of it.

    The request and its view refer to each other, so only the collector frees them, which rarely looks at old ones.
    """
    own: Any = request
    # Django keeps it twice.
    own._request._body, own._request._stream = b"", BytesIO()
    own._stream = None
    own._full_data = own._data = {}


def length_of(request: HttpRequest, most: int) -> int:
    """Return how many bytes the body may have. Raises ApiError where it is longer than `most`, or has no length."""
    if is_chunked(request):
        # DRF takes a request without a length for an empty one. So does WSGI, unless the server marks its end.
        if not request.META.get("wsgi.input_terminated"):
            raise LengthRequired
        return most
    length = str(request.META.get("CONTENT_LENGTH") or "0")
    if not length.isdecimal() or len(length) > MAX_DIGITS or int(length) > most:
        raise RequestTooLarge.of(most)
    return int(length)


def is_chunked(request: HttpRequest) -> bool:
    return "chunked" in request.META.get("HTTP_TRANSFER_ENCODING", "").lower()


def read_body(request: HttpRequest, most: int, *, is_read_later: bool = False) -> bytes:
    """Read the body, of which at most so many bytes are held, and give one in chunks its length. Raises ApiError.

    `is_read_later`: what has a length is left to Django, which reads it when a view asks for the form.
    """
    length_of(request, most)
    if is_read_later and not is_chunked(request):
        return b""
    try:
        body = request.body
    except RequestDataTooBig as exc:
        raise RequestTooLarge.of(most) from exc
    except UnreadablePostError as exc:
        # Django wraps the error of the socket once or twice.
        cause: BaseException | None = exc
        while isinstance(cause, UnreadablePostError):
            cause = cause.__cause__
        if isinstance(cause, TimeoutError):
            raise RequestTimeout from exc
        raise ApiError("The body ends early, or its chunks are none.") from exc
    if len(body) > most:
        raise RequestTooLarge.of(most)
    if is_chunked(request):
        request.META["CONTENT_LENGTH"] = str(len(body))
    return body


def busy(request: HttpRequest) -> HttpResponse:
    body, headers = error_body(503, BUSY, Unavailable.default_code), {"Retry-After": "1"}
    accepted = request.headers.get("Accept", "")
    wanted = request.headers.get("Content-Type", "") if accepted in {"", "*/*"} else accepted
    if "protobuf" in wanted:
        message = error_message(body["error"], headers).SerializeToString()
        return HttpResponse(message, status=503, headers=headers, content_type=wanted.partition(",")[0])
    return JsonResponse(body, status=503, headers=headers)
