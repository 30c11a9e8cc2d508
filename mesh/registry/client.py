"""A thin client of etcd's v3 interface on grpc.aio.

It knows endpoints, TLS, a user, deadlines, and which failures a retry may cure. It must never know vehicles or members.
What always holds: every call ends before its deadline, with an answer or a ``RegistryError``; a call that may have
changed etcd is sent again only if the caller allows it (``retry=True``).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar, final
from urllib.parse import urlsplit

import grpc
import grpc.aio
from google.protobuf.message import Message

from mesh.private import read_given
from mesh.registry import etcd_pb2 as pb
from mesh.registry.errors import Compacted, Full, LeaseLost, RegistryError, RequestRejected, Unauthorised, Unavailable
from mesh.registry.keys import after

log = logging.getLogger("mesh.registry.client")

Answer = TypeVar("Answer", bound=Message)
WatchCall = grpc.aio.StreamStreamCall[pb.WatchRequest, pb.WatchResponse]

DEADLINE: Final = 3.0
"""Seconds for one call with all its tries: longer than etcd's election of a new leader (1 s), shorter than a vehicle's
connect timeout."""

TRY: Final = 1.5
"""Seconds for one try if there are other endpoints, so that one silent member does not use up the deadline of a
call."""

BACKOFF: Final = (0.02, 0.5)
"""First and longest pause in seconds between two tries; the pause is random below the bound, so that the retries of
many nodes spread."""

PAGE: Final = 500
"""Keys in one page of a snapshot: some 2 ms of the event loop, so that a snapshot does not delay messages; a larger
page is hardly faster."""

CHANNEL_OPTIONS: Final[Sequence[tuple[str, int]]] = (
    # A silent connection (a machine that lost power) is detected after 10 + 5 s, even without a call on it.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # gRPC's default pause between two connects grows to two minutes, far longer than a restart of etcd.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Each client owns its connections, so that closing one closes them.
    ("grpc.use_local_subchannel_pool", 1),
    # Enough for a whole fragment of a watch, or 128 values at etcd's limit of a request.
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    # A proxy of the environment is for the web, not for etcd.
    ("grpc.enable_http_proxy", 0),
)


class EtcdTls(NamedTuple):
    """Files in PEM format: the authority of the servers' certificates, and this client's certificate with its key (both
    or none)."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Raises NotPrivate if other users of the host could have changed a file, or read the key; OSError."""
        if (self.cert is None) != (self.key is None):
            raise ValueError("tls: cert and key belong together; give both or neither")
        return grpc.ssl_channel_credentials(
            root_certificates=None if self.ca is None else read_given(self.ca),
            private_key=None if self.key is None else read_given(self.key, secret=True),
            certificate_chain=None if self.cert is None else read_given(self.cert),
        )


def packed(message: Message) -> bytes:
    return message.SerializeToString()


@final
class EtcdEndpoint:
    """One member of the cluster. Its channel is opened at first use, in the loop that uses it."""

    __slots__ = ("address", "channel", "credentials", "methods", "url")

    def __init__(self, url: str, tls: EtcdTls | None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
            raise ValueError(f"an etcd endpoint is http://host:port or https://host:port, not {url!r}")
        if parts.scheme == "http" and tls is not None:
            raise ValueError(f"tls is given, but the etcd endpoint {url!r} is not https://")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        self.url = url
        self.address = f"{host}:{parts.port or 2379}"
        self.credentials = (tls or EtcdTls()).credentials() if parts.scheme == "https" else None
        self.channel: grpc.aio.Channel | None = None
        self.methods: dict[str, Any] = {}

    def open(self) -> grpc.aio.Channel:
        if self.channel is None:
            if self.credentials is None:
                self.channel = grpc.aio.insecure_channel(self.address, options=CHANNEL_OPTIONS)
            else:
                self.channel = grpc.aio.secure_channel(self.address, self.credentials, options=CHANNEL_OPTIONS)
        return self.channel

    def unary(self, method: str, answer: type[Message]) -> Any:
        known = self.methods.get(method)
        if known is None:
            known = self.methods[method] = self.open().unary_unary(
                method, request_serializer=packed, response_deserializer=answer.FromString
            )
        return known

    async def close(self) -> None:
        channel, self.channel = self.channel, None
        self.methods.clear()
        if channel is not None:
            await channel.close(None)


def stale_token(details: str) -> bool:
    """Whether etcd no longer accepts the token: it expired, etcd restarted, or users were changed."""
    return "invalid auth token" in details or "revision of auth store is old" in details


def refusal(details: str) -> bool:
    """Whether etcd's message, which comes with one of several status codes, means that it refused the user."""
    return any(words in details for words in ("authentication failed", "permission denied", "user name", "auth token"))


def typed(error: grpc.aio.AioRpcError, method: str, url: str) -> RegistryError:
    """The RegistryError for an error of gRPC."""
    code, details = error.code(), error.details() or ""
    text = f"{method.rpartition('/')[2]} at {url}: {details or code.name}"
    if refusal(details) or code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        return Unauthorised(text)
    if "compacted" in details:
        return Compacted(text)
    if "lease not found" in details:
        return LeaseLost(text)
    if "database space exceeded" in details:
        return Full(f"{text}; compact and defragment etcd, or raise its quota")
    if code in (
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.NOT_FOUND,
    ):
        return RequestRejected(text)
    return Unavailable(text)


def pause(attempt: int) -> float:
    """Seconds to wait before try ``attempt`` + 1: full jitter below a bound that doubles (AWS, "Exponential Backoff And
    Jitter")."""
    first, longest = BACKOFF
    return random.uniform(first / 2, min(longest, first * 2.0 ** min(attempt, 16)))


@final
class EtcdClient:
    """Calls one etcd cluster. Use it in one event loop; ``close`` it there."""

    __slots__ = ("_closed", "_current", "_endpoints", "_login", "_password", "_token", "_user")

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        tls: EtcdTls | None = None,
        user: str | None = None,
        password: Callable[[], str] | None = None,
    ) -> None:
        """``endpoints`` are URLs of members of one cluster; ``password`` is called at each login, in a thread, and may
        raise OSError. Raises ValueError if the endpoints, or the files of ``tls``, cannot be used."""
        if not endpoints:
            raise ValueError("at least one etcd endpoint is needed, such as https://host:port")
        if (user is None) != (password is None):
            raise ValueError("an etcd user and its password belong together; give both or neither")
        self._endpoints = [EtcdEndpoint(url, tls) for url in endpoints]
        self._current = 0
        self._user = user
        self._password = password
        self._token = ""
        self._login: asyncio.Task[str] | None = None
        self._closed = False

    @property
    def endpoints(self) -> list[str]:
        return [endpoint.url for endpoint in self._endpoints]

    async def close(self) -> None:
        """End all running calls with ``Unavailable`` and close the connections."""
        self._closed = True
        for endpoint in self._endpoints:
            await endpoint.close()
        if self._login is not None:
            await asyncio.gather(self._login, return_exceptions=True)

    # Keys

    async def range(self, request: pb.RangeRequest, *, timeout: float = DEADLINE) -> pb.RangeResponse:
        return await self._call("/etcdserverpb.KV/Range", request, pb.RangeResponse, timeout, True)

    async def get(self, key: bytes, *, timeout: float = DEADLINE) -> pb.KeyValue | None:
        """The newest value of ``key`` that a majority of etcd has, or None."""
        found = await self.range(pb.RangeRequest(key=key), timeout=timeout)
        return found.kvs[0] if found.kvs else None

    async def put(
        self, key: bytes, value: bytes, *, lease: int = 0, timeout: float = DEADLINE, retry: bool = False
    ) -> int:
        """Write one key; return the revision of the write."""
        request = pb.PutRequest(key=key, value=value, lease=lease)
        return (await self._call("/etcdserverpb.KV/Put", request, pb.PutResponse, timeout, retry)).header.revision

    async def delete(self, key: bytes, end: bytes = b"", *, timeout: float = DEADLINE, retry: bool = False) -> int:
        """Delete one key, or all keys from ``key`` up to, not including, ``end``; return the number of deleted keys."""
        request = pb.DeleteRequest(key=key, range_end=end)
        return (await self._call("/etcdserverpb.KV/DeleteRange", request, pb.DeleteResponse, timeout, retry)).deleted

    async def txn(self, request: pb.TxnRequest, *, timeout: float = DEADLINE, retry: bool = False) -> pb.TxnResponse:
        return await self._call("/etcdserverpb.KV/Txn", request, pb.TxnResponse, timeout, retry)

    async def compact(self, revision: int, *, timeout: float = DEADLINE) -> None:
        """Compact etcd's history before ``revision``."""
        request = pb.CompactRequest(revision=revision, physical=True)
        await self._call("/etcdserverpb.KV/Compact", request, pb.CompactResponse, timeout, False)

    async def pages(
        self, prefix: bytes, *, end: bytes = b"", page: int = PAGE, timeout: float = DEADLINE
    ) -> AsyncGenerator[pb.RangeResponse, None]:
        """All keys below ``prefix`` as of one revision (that of the first page), ``page`` keys at a time; at least one
        page. With ``end``, all keys from ``prefix`` to the one before ``end``.

        Raises Compacted if etcd compacts this revision while the pages are read."""
        request = pb.RangeRequest(key=prefix, range_end=end or after(prefix), limit=page)
        while True:
            found = await self.range(request, timeout=timeout)
            if not request.revision:
                request.revision = found.header.revision
            found.header.revision = request.revision
            yield found
            if not found.more or not found.kvs:
                return
            request.key = found.kvs[-1].key + b"\0"

    # Leases

    async def grant(self, ttl: int, *, timeout: float = DEADLINE) -> tuple[int, int]:
        """A new lease of about ``ttl`` seconds; return its id and the seconds that etcd chose. If the answer is lost,
        the lease expires by itself."""
        made = await self._call(
            "/etcdserverpb.Lease/LeaseGrant", pb.GrantRequest(ttl=ttl), pb.GrantResponse, timeout, True
        )
        return made.id, made.ttl

    async def keep_alive(self, lease: int, *, timeout: float = DEADLINE) -> int:
        """Renew a lease; return its seconds. Raises LeaseLost.

        etcd offers this as a stream of pings. A stream with one ping that is closed at once is, on the wire, a plain
        call, and has the fail-over and the deadline of one."""
        request = pb.KeepAliveRequest(id=lease)
        kept = await self._call("/etcdserverpb.Lease/LeaseKeepAlive", request, pb.KeepAliveResponse, timeout, True)
        if kept.ttl <= 0:
            raise LeaseLost(f"lease {lease:x} has expired")
        return kept.ttl

    async def revoke(self, lease: int, *, timeout: float = DEADLINE) -> None:
        """End a lease and delete its keys. Raises LeaseLost if there is none."""
        await self._call(
            "/etcdserverpb.Lease/LeaseRevoke", pb.RevokeRequest(id=lease), pb.RevokeResponse, timeout, True
        )

    async def time_to_live(self, lease: int, *, timeout: float = DEADLINE) -> int:
        """The remaining seconds of a lease; -1 if there is no such lease."""
        request = pb.TimeToLiveRequest(id=lease)
        left = await self._call("/etcdserverpb.Lease/LeaseTimeToLive", request, pb.TimeToLiveResponse, timeout, True)
        return left.ttl

    # The cluster

    async def status(self, *, timeout: float = DEADLINE) -> pb.StatusResponse:
        return await self._call(
            "/etcdserverpb.Maintenance/Status", pb.StatusRequest(), pb.StatusResponse, timeout, True
        )

    async def watch(self, request: pb.WatchCreate, *, timeout: float = DEADLINE) -> tuple[WatchCall, str]:
        """An open watch stream on the current endpoint, with ``request`` sent, and the endpoint's URL. The caller reads
        and cancels it.

        The stream ends if its member loses the leader (etcd's ``hasleader``); without that it would only be silent."""
        endpoint = self._endpoint()
        method = "/etcdserverpb.Watch/Watch"
        token = await self._authenticate(timeout)
        metadata = (("hasleader", "true"), ("token", token)) if token else (("hasleader", "true"),)
        call: WatchCall = endpoint.open().stream_stream(
            method, request_serializer=packed, response_deserializer=pb.WatchResponse.FromString
        )(request_iterator=None, metadata=metadata)
        try:
            async with asyncio.timeout(timeout):
                await call.write(pb.WatchRequest(create=request))
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, TimeoutError) as error:
            call.cancel()
            raise self.broken(error, endpoint.url) from None
        except asyncio.CancelledError:
            call.cancel()
            raise
        return call, endpoint.url

    def broken(self, error: Exception, url: str) -> RegistryError:
        """The RegistryError for a failed stream at ``url``. The next call uses another endpoint, and a new token if the
        old one was refused."""
        self._fail_over(url)
        if isinstance(error, grpc.aio.AioRpcError):
            if stale_token(error.details() or ""):
                self._token = ""
                return Unavailable(f"Watch at {url}: {error.details()}")
            return typed(error, "Watch", url)
        return Unavailable(f"Watch at {url}: {error or type(error).__name__}")

    def forget_token(self) -> None:
        """Drop the token: the next call logs in again."""
        self._token = ""

    # How calls are made

    def _endpoint(self) -> EtcdEndpoint:
        if self._closed:
            raise Unavailable("this etcd client is closed")
        return self._endpoints[self._current]

    def _fail_over(self, url: str) -> None:
        """Use the next endpoint, unless another call already left ``url``."""
        if self._endpoints[self._current].url == url:
            self._current = (self._current + 1) % len(self._endpoints)

    async def _call(self, method: str, request: Message, answer: type[Answer], timeout: float, retry: bool) -> Answer:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        attempt = 0
        renewed = False
        while True:
            endpoint = self._endpoint()
            left = deadline - loop.time()
            try:
                token = await self._authenticate(max(left, 0.001))
                return await self._once(endpoint, method, request, answer, self._limit(left, retry), token)
            except Unavailable as error:
                failure = error
            except grpc.aio.AioRpcError as error:
                if self._user is not None and not renewed and stale_token(error.details() or ""):
                    # etcd did nothing if it refused the token, so every call may be sent again.
                    renewed = True
                    self._token = ""
                    continue
                kind = typed(error, method, endpoint.url)
                if not isinstance(kind, Unavailable):
                    raise kind from None
                self._fail_over(endpoint.url)
                failure = kind
            rest = pause(attempt)
            attempt += 1
            if not retry or loop.time() + rest >= deadline:
                raise failure
            # The first round over all endpoints needs no pause: each try asks another member.
            if attempt >= len(self._endpoints):
                await asyncio.sleep(rest)

    def _limit(self, left: float, retry: bool) -> float:
        """Seconds for this one try."""
        return max(0.001, min(left, TRY) if retry and len(self._endpoints) > 1 else left)

    async def _once(
        self, endpoint: EtcdEndpoint, method: str, request: Message, answer: type[Answer], timeout: float, token: str
    ) -> Answer:
        metadata = (("token", token),) if token else None
        try:
            result: Answer = await endpoint.unary(method, answer)(request, timeout=timeout, metadata=metadata)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._closed and (task is None or not task.cancelling()):
                # gRPC cancels the calls of a closed channel, as if the caller were cancelled.
                raise Unavailable("this etcd client is closed") from None
            raise
        return result

    async def _authenticate(self, timeout: float) -> str:
        """The token for the next call; empty if this client has no user. Concurrent calls share one login."""
        if self._user is None or self._token:
            return self._token
        if self._login is None or self._login.done():
            self._login = asyncio.create_task(self._log_in(), name="etcd login")
            # All callers may be cancelled before it fails.
            self._login.add_done_callback(lambda task: task.cancelled() or task.exception())
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.shield(self._login)
        except TimeoutError:
            raise Unavailable(f"Authenticate at {self._endpoints[self._current].url}: no answer in time") from None

    async def _log_in(self) -> str:
        endpoint = self._endpoint()
        request = pb.AuthenticateRequest(name=self._user or "", password=await self._read_password())
        method = "/etcdserverpb.Auth/Authenticate"
        try:
            answer = await self._once(
                endpoint, method, request, pb.AuthenticateResponse, self._limit(DEADLINE, True), ""
            )
        except grpc.aio.AioRpcError as error:
            kind = typed(error, method, endpoint.url)
            if isinstance(kind, Unavailable):
                self._fail_over(endpoint.url)
            raise kind from None
        self._token = answer.token
        return self._token

    async def _read_password(self) -> str:
        try:
            return "" if self._password is None else await asyncio.to_thread(self._password)
        except OSError as error:
            raise Unavailable(error.strerror or str(error)) from None


def put(key: bytes, value: bytes, lease: int = 0) -> pb.Operation:
    return pb.Operation(put=pb.PutRequest(key=key, value=value, lease=lease))


def get(key: bytes) -> pb.Operation:
    return pb.Operation(range=pb.RangeRequest(key=key))


def absent(key: bytes) -> pb.Compare:
    """True if the key does not exist."""
    return pb.Compare(key=key, target=pb.Compare.CREATE, result=pb.Compare.EQUAL, create_revision=0)


def unchanged(key: bytes, revision: int) -> pb.Compare:
    """True if the key was last written at ``revision``."""
    return pb.Compare(key=key, target=pb.Compare.MOD, result=pb.Compare.EQUAL, mod_revision=revision)


def holds(key: bytes, value: bytes) -> pb.Compare:
    """True if the key has this value."""
    return pb.Compare(key=key, target=pb.Compare.VALUE, result=pb.Compare.EQUAL, value=value)
