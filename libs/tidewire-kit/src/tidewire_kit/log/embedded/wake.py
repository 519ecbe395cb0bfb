"""Wakes readers in other processes: a datagram per commit to each process that reads the topic.

A reading process binds one socket in `run/wake/` and links it into a directory per topic; a writer sends to every link
it finds there. A datagram says no more than "look at this topic", so losing one costs a fall-back poll and nothing
else. Sockets of dead processes refuse, and are removed by whoever notices.
"""

import asyncio
import contextlib
import errno
import os
import socket
import time
import uuid
from collections.abc import Callable
from pathlib import Path

_SHORT_NAMES = Path("/proc/self/fd").exists()

_SETTLED_SECONDS = 0.05
"""A directory listing is only kept if the directory had not changed for so long: its clock ticks coarsely."""
LOOK_SECONDS = 0.005
"""New readers of a stream are looked for this often while commits follow each other closely."""


class _Directory:
    """A directory whose sockets can be named in few bytes: a socket's path may not be longer than 107."""

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def socket_path(self, name: str) -> str:
        if _SHORT_NAMES:
            return f"/proc/self/fd/{self.descriptor}/{name}"
        return str(self.path / name)

    def close(self) -> None:
        os.close(self.descriptor)


class WakeSender:
    """The sending end of one topic. Blocking calls of a few µs; one thread at a time."""

    def __init__(self, wake_directory: Path, topic: str, look_seconds: float = 0.0) -> None:
        """`look_seconds`: how long the readers that were found hold."""
        self._directory = _Directory(wake_directory / topic)
        self._look_seconds = look_seconds
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        self._payload = topic.encode()
        self._names: list[str] = []
        self._listed_mtime_ns = -1
        self._looked_at = float("-inf")

    def notify(self) -> None:
        """Tells all readers of the topic to look. Never raises: they look by themselves too."""
        now = time.monotonic()
        if now - self._looked_at >= self._look_seconds:
            self._looked_at = now
            self._look()
        for name in self._names:
            try:
                self._socket.sendto(self._payload, self._directory.socket_path(name))
            except BlockingIOError:
                pass  # its queue is full: it has been woken often enough
            except OSError as error:
                if error.errno in {errno.ECONNREFUSED, errno.ENOENT}:
                    with contextlib.suppress(OSError):
                        os.unlink(name, dir_fd=self._directory.descriptor)

    def _look(self) -> None:
        """Lists the readers anew if any have come or gone."""
        with contextlib.suppress(OSError):  # such as no descriptor left to list with
            mtime_ns = os.fstat(self._directory.descriptor).st_mtime_ns
            if mtime_ns != self._listed_mtime_ns:
                self._names = os.listdir(self._directory.descriptor)
                settled = time.time_ns() - mtime_ns > _SETTLED_SECONDS * 1e9
                self._listed_mtime_ns = mtime_ns if settled else -1

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()
        self._directory.close()


class WakeReceiver:
    """The receiving end of a process: calls back on the event loop when a topic has something new."""

    def __init__(self, wake_directory: Path) -> None:
        self._directory = _Directory(wake_directory)
        self._root = wake_directory
        self._name = f"{os.getpid()}-{uuid.uuid4().hex[:12]}"
        self._socket: socket.socket | None = None
        self._callbacks: dict[str, list[Callable[[], None]]] = {}

    def start(self) -> None:
        """Binds the socket and listens on the running loop. Without sockets (path too long) readers only poll."""
        receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        receiver.setblocking(False)
        try:
            receiver.bind(self._directory.socket_path(self._name))
        except OSError:
            receiver.close()
            return
        self._socket = receiver
        self._remove_dead()
        asyncio.get_running_loop().add_reader(receiver, self._drain)

    def subscribe(self, topic: str, callback: Callable[[], None]) -> None:
        """Calls `callback` whenever the topic may have something new."""
        callbacks = self._callbacks.setdefault(topic, [])
        callbacks.append(callback)
        if len(callbacks) == 1 and self._socket is not None:
            (self._root / topic).mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(OSError):  # no links here: then this topic is polled
                os.link(self._root / self._name, self._root / topic / self._name)

    def unsubscribe(self, topic: str, callback: Callable[[], None]) -> None:
        """Ends a subscription."""
        callbacks = self._callbacks.get(topic, [])
        if callback in callbacks:
            callbacks.remove(callback)
        if not callbacks and self._callbacks.pop(topic, None) is not None:
            (self._root / topic / self._name).unlink(missing_ok=True)

    def close(self) -> None:
        """Removes the socket and its links."""
        for topic in self._callbacks:
            (self._root / topic / self._name).unlink(missing_ok=True)
        self._callbacks.clear()
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            (self._root / self._name).unlink(missing_ok=True)
            self._socket = None
        self._directory.close()

    def _remove_dead(self) -> None:
        """Removes the sockets of processes that were killed."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
            for entry in os.scandir(self._root):
                if entry.name == self._name or entry.is_dir():
                    continue
                try:
                    probe.connect(self._directory.socket_path(entry.name))
                except ConnectionRefusedError:
                    with contextlib.suppress(OSError):
                        os.unlink(entry.path)
                except OSError:
                    continue

    def _drain(self) -> None:
        assert self._socket is not None
        topics = set()
        with contextlib.suppress(BlockingIOError):
            for _ in range(256):
                topics.add(self._socket.recv(256))
        for topic in topics:
            for callback in tuple(self._callbacks.get(topic.decode(), ())):
                callback()
