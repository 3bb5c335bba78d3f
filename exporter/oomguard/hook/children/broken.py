"""Whether an error means that the other end of a pipe is gone."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_ANYIO = frozenset({"ClosedResourceError", "BrokenResourceError", "EndOfStream"})
_MCP_CLOSED = -32000
"""What the MCP Python SDK answers calls that are under way when its connection ends (mcp.types.CONNECTION_CLOSED)."""


def is_broken(error: BaseException | None) -> bool:
    """True for a broken pipe, a reset connection, or an end of file where there should be none.

    That is EPIPE and ESHUTDOWN (BrokenPipeError), ConnectionError, EOFError (asyncio's IncompleteReadError is one),
    anyio's errors for closed streams and the MCP SDK's for a closed connection, by name; and groups of nothing else.
    """
    if isinstance(error, ConnectionError | EOFError):
        return True
    members: Sequence[BaseException] | None = getattr(error, "exceptions", None)
    if members is not None and isinstance(error, BaseException) and type(error).__name__.endswith("Group"):
        return bool(members) and all(map(is_broken, members))
    for kind in type(error).__mro__:
        package = kind.__module__.partition(".")[0]
        if package == "anyio" and kind.__name__ in _ANYIO:
            return True
        if package == "mcp" and kind.__name__ in ("McpError", "MCPError"):
            return getattr(getattr(error, "error", None), "code", None) == _MCP_CLOSED
    return False
