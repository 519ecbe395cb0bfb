"""What every call of a process passes, and how a stopping process lets go of the calls it has.

One `Guard` per process, made by `tidewire_kit.service.run`, used by `service_handler` and `Server`.
"""

import asyncio
import random
from collections.abc import AsyncIterable, AsyncIterator

from tidewire_kit.identity.verifier import TokenVerifier
from tidewire_kit.observability.metrics import RpcMetrics

STREAM_AGE_KEY = "tidewire-stream-seconds"
"""Initial metadata of a request stream: after so long the client shall say that it has sent its last request, wait for
the answers, and open another, so that new processes get their share and nothing is cut off."""
STREAM_END_SECONDS = 5.0
"""A client that does not is left in peace for so long; then its requests are read no more, those read are answered."""
_IDLE_POLL_SECONDS = 0.01


class Guard:
    """The verifier of tokens, the metrics, the calls in flight, and whether new ones are taken."""

    __slots__ = ("draining", "in_flight", "metrics", "stream_age_seconds", "streams", "verifier")

    def __init__(self, verifier: TokenVerifier, metrics: RpcMetrics) -> None:
        self.verifier = verifier
        self.metrics = metrics
        self.in_flight = 0
        """Calls that are being answered."""
        self.streams: set[DrainableRequests] = set()
        """Open request streams."""
        self.stream_age_seconds: tuple[float, float] | None = None
        """Between which ages the client of a request stream is asked to open another; None: never."""
        self.draining = False
        """True once the process is stopping: new calls are refused with UNAVAILABLE, those in flight go on."""

    def drain(self) -> None:
        """Refuses new calls from now on, and ends every open request stream after what it has already delivered."""
        self.draining = True
        for stream in list(self.streams):
            stream.end()

    def limit_age(self, stream: "DrainableRequests") -> tuple[float, asyncio.TimerHandle] | None:
        """Chooses the age in s at which the stream's client is to open another, and ends it itself a little later.

        The caller tells the client (`STREAM_AGE_KEY`), and cancels the timer when the stream has ended before.
        """
        if self.stream_age_seconds is None:
            return None
        age = random.uniform(*self.stream_age_seconds)
        timer = asyncio.get_running_loop().call_later(age + STREAM_END_SECONDS, stream.end_at_age)
        return age, timer

    async def idle(self, seconds: float) -> bool:
        """Waits until no call is in flight; False when `seconds` were not enough."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while self.in_flight > 0:
            if loop.time() >= deadline:
                return False
            await asyncio.sleep(_IDLE_POLL_SECONDS)
        return True


class DrainableRequests:
    """A client's request stream that the server can end: the servicer then answers what it has and returns.

    Otherwise a stream that its client keeps open would hold up every stop, and be cut in the midst of a batch.
    """

    __slots__ = ("_iterator", "_reader", "_requests", "ended", "stopped")

    def __init__(self, requests: AsyncIterable[bytes]) -> None:
        self._requests = requests
        self._iterator: AsyncIterator[bytes] | None = None
        self._reader: asyncio.Task[object] | None = None
        self.ended = False
        """Whether the server ended it, not the client."""
        self.stopped = False
        """Whether it did so because the process is stopping."""

    def end(self) -> None:
        """Lets the next `anext` end the iteration, also one that is waiting now, as the process is stopping."""
        self.stopped = True
        self._end()

    def end_at_age(self) -> None:
        """The same for a stream that is to be opened again, so that new processes get their share."""
        self._end()

    def _end(self) -> None:
        self.ended = True
        if self._reader is not None:
            self._reader.cancel()

    def _is_ended(self) -> bool:
        return self.ended  # may have changed while we waited, which a type checker does not see

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self.ended:
            raise StopAsyncIteration
        self._reader = task = asyncio.current_task()
        try:
            if self._iterator is None:  # made late: the library complains of one that is never used
                self._iterator = aiter(self._requests)
            return await anext(self._iterator)
        except asyncio.CancelledError:
            # Ours, and nobody else's besides: then it is the end of the stream. Otherwise it goes on its way.
            if self._is_ended() and task is not None and task.uncancel() == 0:
                raise StopAsyncIteration from None
            raise
        finally:
            self._reader = None
