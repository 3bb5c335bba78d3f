"""An MCP server of the Python SDK with two tools: on stdio as a program, over HTTP as ``mcp_tools:app``.

Over stdio it does not know oomguard. Over HTTP ``/facts`` tells which paths were asked for, and how many sessions live.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from mcp.server.mcpserver import Context, MCPServer

Message = MutableMapping[str, Any]

server: MCPServer[Any] = MCPServer("calculator", log_level="WARNING")


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
async def count(to: int, ctx: Context[Any]) -> str:
    """Count, and report each step."""
    for step in range(1, to + 1):
        await ctx.report_progress(step, to)
    return "counted"


def over_http() -> Any:
    from serving import guard

    inner = server.streamable_http_app()
    asked: Counter[str] = Counter()

    async def app(
        scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        if scope["type"] == "http":
            asked[f"{scope['method']} {scope['path']}"] += 1
            if scope["path"] == "/facts":
                sessions = len(server.session_manager._server_instances)
                body = json.dumps({"asked": asked, "sessions": sessions}).encode()
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": body})
                return
        await inner(scope, receive, send)

    return guard.asgi(app)


if __name__ == "__main__":
    server.run()
else:
    app = over_http()
