"""The local face: ZeroMQ on a socket in the run directory, for programs of our own user.

It carries requests to the same app as the HTTP server does, so nothing of routes, rights, checks,
limits and errors is written here.

face.py        the listener: who may connect, how many, and the end of it
connection.py  one client: its socket, and the one request that it asks now
exchange.py    that request in ASGI's terms
zmtp.py        ZeroMQ's own protocol, as bytes (pure)
"""

from rbee.supervisor.local.face import LocalSocket, serve_local

__all__ = ["LocalSocket", "serve_local"]
