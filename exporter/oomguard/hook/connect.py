"""Finding the sidecar's socket, and whether to trust who listens there."""

from __future__ import annotations

import _socket
import os
import struct

from oomguard.hook.descriptors import Descriptor

# The C module: gevent and eventlet replace socket.socket, never this one.
_TIMEOUT = 1.0
"""Seconds; connecting to a unix socket waits only where the listener's queue is full."""

_UCRED = struct.Struct("iII")
"""struct ucred: pid, uid, gid (unix(7), SO_PEERCRED)."""


class DistrustedError(OSError):
    """Someone listens who is neither root, nor this user, nor the directory's owner."""


def connect(runtime_dir: str) -> Descriptor:
    """Make a non-blocking connection to the sidecar of `runtime_dir`.

    Raises OSError where nobody listens, and DistrustedError where the wrong one does.
    """
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        connection.settimeout(_TIMEOUT)
        if runtime_dir.startswith("@"):
            connection.connect(b"\0" + os.fsencode(runtime_dir[1:]))
            trusted = {0, os.geteuid()}
        else:
            connection.connect(os.path.join(runtime_dir, "sidecar.sock"))  # noqa: PTH118 (pathlib costs 3 ms)
            trusted = {0, os.geteuid(), os.stat(runtime_dir).st_uid}  # noqa: PTH116 (as above)
        _check(connection, runtime_dir, trusted)
        connection.setblocking(False)
        return Descriptor(connection.detach())
    finally:
        connection.close()


def _check(connection: _socket.socket, runtime_dir: str, trusted: set[int]) -> None:
    # Asked of the connection, not of the file: nobody can change it in between.
    option = getattr(_socket, "SO_PEERCRED", None)
    if option is not None:
        credentials = connection.getsockopt(_socket.SOL_SOCKET, option, _UCRED.size)
        owner = _UCRED.unpack(credentials)[1]
    else:
        owner = os.stat(os.path.join(runtime_dir, "sidecar.sock")).st_uid  # noqa: PTH116, PTH118 (as above)
    if owner not in trusted:
        raise DistrustedError(f"{runtime_dir}: the socket belongs to uid {owner}, not to root or this user")
