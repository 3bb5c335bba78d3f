"""The app's own /admin endpoints, for callers from outside: GET /admin/memory and POST /admin/cleanup.

Imported when the application mounts them (`Guard.asgi`, `Guard.wsgi`, `Guard.aiohttp`), not before: an
application that does not pays nothing. Nothing here knows a framework; the mounts are in `web`.
"""
