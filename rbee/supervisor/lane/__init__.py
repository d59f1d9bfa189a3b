"""The lane: plain HTTP/1.1 requests on the hot routes, answered without a task per request.

machine.py   what one connection says: bytes in, events and bytes out (pure)
head.py      reads the head of a request (pure; the one file that knows httptools)
answer.py    writes the head of an answer (pure)
"""

from rbee.supervisor.lane.answer import DateCache, Headers
from rbee.supervisor.lane.head import Head
from rbee.supervisor.lane.machine import HandOver, Machine, Refused, Request

__all__ = ["DateCache", "HandOver", "Head", "Headers", "Machine", "Refused", "Request"]
