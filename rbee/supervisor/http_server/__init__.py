"""The HTTP server: hypercorn's HTTP/1.1 on trio, guarded. Only this room imports hypercorn.

From hypercorn come the protocol (`H11Protocol`) and the ASGI side of a request (`HTTPStream`).
Ours is what carries them: accepting, one bulkhead per connection, reading, sending, closing.

    server.py       accepts, caps, shuts down
    sockets.py      binds, and sets what the kernel is to do
    tls.py          the certificate, and sockets that speak under it
    connection.py   one connection from accept to close
    bulkhead.py     what goes wrong in it stays in it
    protocol.py     hypercorn's two classes, with what we change in them
    guard.py        which requests are refused before anybody reads them (pure)
    inbox.py        what an app receives
    outbox.py       what a client is sent; the direct writer
"""

from rbee.supervisor.http_server.bulkhead import Bulkhead
from rbee.supervisor.http_server.limits import HttpLimits
from rbee.supervisor.http_server.outbox import BrokenReason, DirectWriter, Outbox
from rbee.supervisor.http_server.server import Back, Front, SparseLog, serve_http
from rbee.supervisor.http_server.sockets import bind_sockets, stop_connecting
from rbee.supervisor.http_server.tls import Tls

__all__ = [
    "Back", "BrokenReason", "Bulkhead", "DirectWriter", "Front", "HttpLimits", "Outbox",
    "SparseLog", "Tls", "bind_sockets", "serve_http", "stop_connecting",
]  # fmt: skip
