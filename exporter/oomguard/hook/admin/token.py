"""The Bearer token of the app's endpoints: OOMGUARD_TOKEN, else the file that `oomguard run` made."""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import Enum
from hmac import compare_digest

from oomguard.hook.descriptors import Descriptor

_LONGEST = 4096


class Access(Enum):
    """What a request's token opens."""

    GRANTED = "granted"
    MISSING = "missing"
    WRONG = "wrong"


def check(authorization: str | None, environ: Mapping[str, str]) -> Access:
    """Judge an Authorization header. Where no token is set, every token is wrong.

    The token is looked for at every request: the sidecar may make the file after the application's start.
    """
    if not authorization:
        return Access.MISSING
    scheme, _, given = authorization.partition(" ")
    if scheme.lower() != "bearer":
        return Access.WRONG
    expected = environ.get("OOMGUARD_TOKEN", "").encode("utf-8", "surrogateescape")
    expected = expected or _of_file(environ.get("OOMGUARD_RUNTIME_DIR", ""))
    same = compare_digest(given.strip().encode("utf-8", "surrogateescape"), expected)
    return Access.GRANTED if same and expected else Access.WRONG


def _of_file(runtime_dir: str) -> bytes:
    """Content of the file `token`; empty where there is none that can be read and trusted.

    One that neither root, nor this user, nor the directory's owner put there would be known to them.
    """
    if not runtime_dir or runtime_dir.startswith("@"):
        return b""
    try:
        path = os.path.join(runtime_dir, "token")  # noqa: PTH118 - beside os.open
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # a pipe would block the app
        file = Descriptor(os.open(path, flags))
        try:
            trusted = {0, os.geteuid(), os.stat(runtime_dir).st_uid}  # noqa: PTH116 - as above
            if os.fstat(file.number).st_uid not in trusted:
                return b""
            return os.read(file.number, _LONGEST).strip()
        finally:
            file.close()
    except OSError:
        return b""
