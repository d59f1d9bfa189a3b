"""The lane: plain HTTP/1.1 requests on the hot routes, answered without a task per request.

lane.py        the loop: accepts, waits, takes turns, drains
carrier.py     what a connection sees of the loop
connection.py  one connection: socket, machine, and the request that it answers
client_socket.py  what a client says, what it is sent, and how it is left
state.py       how a connection stands, and how long it may stay so (pure)
timers.py      until when each connection may go on as it does (pure)
machine.py     what one connection says: bytes in, events and bytes out (pure)
head.py        reads the head of a request (pure; the one file that knows httptools)
answer.py      writes the head of an answer (pure)
"""

from rbee.supervisor.lane.answer import DateCache, Headers
from rbee.supervisor.lane.head import Head
from rbee.supervisor.lane.lane import Lane
from rbee.supervisor.lane.machine import HandOver, Machine, Refused, Request

__all__ = ["DateCache", "HandOver", "Head", "Headers", "Lane", "Machine", "Refused", "Request"]
