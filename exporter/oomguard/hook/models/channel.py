"""Messages between the application and the process of an isolated model.

A message is a pickle (protocol 5) and the buffers that it leaves out (PEP 574): large arrays. It begins with a
header, network byte order: ``oomg``, 1 if a file is passed along, how many segments (the pickle is the first), the
call's number, bytes of all segments; then the length of each segment. The segments follow, or, where all
together have 256 KiB or more, lie in an anonymous file (memfd_create(2)) that comes with the header (unix(7),
SCM_RIGHTS). The reader maps it, so that an array is copied once, by the writer, and lives in the map.
"""

from __future__ import annotations

import _socket
import mmap
import os
import pickle
import struct

from oomguard.hook.descriptors import Descriptor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Segments = list[memoryview]

_HEADER = struct.Struct("!4s?xHQQ")
_LENGTH = struct.Struct("!Q")
_MAGIC = b"oomg"
_LARGE = 256 << 10
"""Bytes from which on a file is cheaper than the socket, and a buffer is left out of the pickle: 128 KiB there and back
took 0.24 ms by the socket and 0.44 by a file, 1 MiB 4.6 and 1.3."""
_MOST = 0xFFFF
"""Segments of a message; buffers beyond stay in the pickle."""
_ALIGNED = 64
"""Bytes; what numpy and torch like their arrays to begin at."""
_CHUNK = 1 << 20
_RIGHTS = _socket.CMSG_SPACE(4)


class ChannelClosed(OSError):  # noqa: N818 (an end, not a fault)
    """Nobody is at the other end, or what it says is no message."""


def encode(message: object) -> Segments:
    """Pickle a message; runs code of the objects in it. Raises what pickling them raises."""
    buffers: list[memoryview] = []

    def left_out(buffer: pickle.PickleBuffer) -> bool:
        """Whether it stays in the pickle."""
        try:
            raw = buffer.raw()
        except BufferError:  # not contiguous
            return True
        if raw.nbytes < _LARGE or len(buffers) >= _MOST - 1:
            return True
        buffers.append(raw)
        return False

    pickled = pickle.dumps(message, protocol=5, buffer_callback=left_out)
    return [memoryview(pickled), *buffers]


def decode(segments: Segments, *, find: Callable[[str, str], object] | None = None) -> Any:
    """Unpickle a message; `find` replaces the search for classes."""
    if find is None:
        # From the process that this one started, over a socket that nobody else can open.
        return pickle.loads(segments[0], buffers=segments[1:])  # noqa: S301 (see above)
    from io import BytesIO  # noqa: PLC0415 (only for errors)

    class Finding(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> object:
            assert find is not None
            return find(module, name)

    return Finding(BytesIO(segments[0]), buffers=segments[1:]).load()


class Channel:
    """One end. `wait(number, writing)` returns when the descriptor can be read or written, or raises.

    Receiving may be interrupted anywhere by an exception out of `wait`, and goes on with the next call. A
    sending that was interrupted leaves half a message: the channel then is `broken`.
    """

    def __init__(self, descriptor: Descriptor, wait: Callable[[int, bool], None]) -> None:
        os.set_blocking(descriptor.number, False)
        self.descriptor = descriptor
        self.broken = False
        self._wait = wait
        self._got = bytearray()
        self._file: int | None = None

    def send(self, number: int, segments: Segments) -> None:
        """Send a message; raises `ChannelClosed`, or what `wait` does."""
        total = sum(segment.nbytes for segment in segments)
        file = _file(segments) if total >= _LARGE else None
        lengths = b"".join(_LENGTH.pack(segment.nbytes) for segment in segments)
        head = _HEADER.pack(_MAGIC, file is not None, len(segments), number, total) + lengths
        parts = [memoryview(head), *(segments if file is None else ())]
        self.broken = True
        try:
            rights = (
                [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("i", file))] if file is not None else []
            )
            while parts:
                sent = self._send(parts, rights)
                rights = []
                while parts and sent >= parts[0].nbytes:
                    sent -= parts.pop(0).nbytes
                if sent:
                    parts[0] = parts[0][sent:]
        finally:
            if file is not None:
                os.close(file)
        self.broken = False

    def receive(self) -> tuple[int, Segments]:
        """The next message: its call's number and its segments; raises `ChannelClosed`, or what `wait` does."""
        self._fill(_HEADER.size)
        magic, filed, count, number, total = _HEADER.unpack_from(self._got)
        if magic != _MAGIC or not count:
            raise ChannelClosed("not a message")
        head = _HEADER.size + count * _LENGTH.size
        self._fill(head)
        lengths = [
            _LENGTH.unpack_from(self._got, _HEADER.size + index * _LENGTH.size)[0] for index in range(count)
        ]
        if sum(lengths) != total:
            raise ChannelClosed("not a message")
        if not filed:
            self._fill(head + total)
            content, offset, step = memoryview(self._got), head, 1
        else:
            file, self._file = self._file, None
            if file is None:
                raise ChannelClosed("a message without its file")
            try:
                content, offset, step = memoryview(mmap.mmap(file, 0)), 0, _ALIGNED
            finally:
                os.close(file)
        self._got = bytearray()
        segments = []
        for length in lengths:
            segments.append(content[offset : offset + length])
            offset += _up(length, step)
        return number, segments

    def close(self) -> None:
        """Close this end; the other one sees the end of file."""
        self.descriptor.close()
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _send(self, parts: Segments, rights: list[tuple[int, int, bytes]]) -> int:
        while True:
            try:
                sent: int = self._socket(lambda end: end.sendmsg(parts[:64], rights, _socket.MSG_NOSIGNAL))
            except BlockingIOError:  # noqa: PERF203 (the loop is the retry)
                self._wait(self.descriptor.number, True)
            else:
                return sent

    def _fill(self, size: int) -> None:
        while len(self._got) < size:
            wanted = min(size - len(self._got), _CHUNK)
            try:
                data, extra, _, _ = self._socket(
                    lambda end: end.recvmsg(wanted, _RIGHTS, getattr(_socket, "MSG_CMSG_CLOEXEC", 0))  # noqa: B023
                )
            except BlockingIOError:
                self._wait(self.descriptor.number, False)
                continue
            for level, kind, content in extra:
                if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
                    self._file = struct.unpack_from("i", content)[0]
            if not data:
                raise ChannelClosed("end of file")
            self._got += data

    def _socket(self, use: Callable[[_socket.socket], Any]) -> Any:
        """Use the descriptor as a socket, for it may have become somebody else's number meanwhile."""
        if not self.descriptor.ours():
            raise ChannelClosed("the application closed it")
        end = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, self.descriptor.number)
        try:
            return use(end)
        except BlockingIOError:
            raise
        except OSError as error:
            raise ChannelClosed(str(error)) from None
        finally:
            end.detach()


def _file(segments: Segments) -> int | None:
    """An anonymous file with the segments, each at an aligned place; None where the system has none."""
    create = getattr(os, "memfd_create", None)
    if create is None:
        return None
    try:
        file: int = create("oomguard-call", os.MFD_CLOEXEC)
    except OSError:
        return None
    offset = 0
    try:
        for segment in segments:
            _write(file, segment, offset)
            offset += _up(segment.nbytes, _ALIGNED)
        os.ftruncate(file, offset)
    except OSError:  # no memory, or a limit on files: the socket does it, too
        os.close(file)
        return None
    return file


def _write(file: int, content: memoryview, offset: int) -> None:
    while content.nbytes:
        written = os.pwrite(file, content, offset)
        content = content[written:]
        offset += written


def _up(size: int, step: int) -> int:
    return -(-size // step) * step
