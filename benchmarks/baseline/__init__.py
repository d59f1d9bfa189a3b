"""The yardstick: the same service as an ordinary uvicorn + starlette + zmq.asyncio program.

It does what rbee's streaming path does (HTTP in, one ZeroMQ message per step from each worker
process, SSE out, the same chunks) and nothing else: no supervision, no limits, no deadlines.
"""
