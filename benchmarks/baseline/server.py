"""The baseline's supervisor: starlette's StreamingResponse on uvicorn, fed by zmq.asyncio.

Written the ordinary way: one receiving task per worker, one queue per request, and the task
of a stream is woken for each delta.
"""

import argparse
import asyncio
import contextlib
import importlib
import itertools
import json
import logging
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import msgspec
import uvicorn
import zmq
import zmq.asyncio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from wire import Cancel, Delta, Generate, encoder

WORKER: Final = Path(__file__).with_name("worker.py")
START_TIMEOUT_S: Final = 20.0
CREATED_S: Final = int(time.time())

_step_decoder: Final = msgspec.msgpack.Decoder(list[Delta])
_json_encoder: Final = msgspec.json.Encoder()


class _Message(msgspec.Struct):
    role: str
    content: str


class _Body(msgspec.Struct):
    model: str
    messages: list[_Message]
    max_tokens: int = 16
    stream: bool = False


_body_decoder: Final = msgspec.json.Decoder(_Body)


class Worker:
    """One worker process and the requests that are on it."""

    def __init__(self, number: int, directory: str, options: list[str]) -> None:
        address = f"ipc://{directory}/{number}"
        self._link = zmq.asyncio.Context.instance().socket(zmq.DEALER)
        self._link.setsockopt(zmq.LINGER, 0)
        self._link.setsockopt(zmq.RCVHWM, 8)
        self._link.bind(address)
        command = [sys.executable, str(WORKER), address, *options]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE)
        self.open: dict[int, asyncio.Queue[Delta]] = {}

    async def wait_ready(self) -> None:
        assert await asyncio.wait_for(self._link.recv(), START_TIMEOUT_S) == b"ready"

    async def receive(self) -> None:
        while True:
            for delta in _step_decoder.decode(await self._link.recv()):
                queue = self.open.get(delta.request_id)
                if queue is not None:
                    queue.put_nowait(delta)

    async def generate(self, request_id: int, body: _Body) -> AsyncIterator[Delta]:
        queue = self.open[request_id] = asyncio.Queue()
        prompt = "\n".join(f"{each.role}: {each.content}" for each in body.messages)
        is_over = False
        try:
            await self._link.send(encoder.encode(Generate(request_id, prompt, body.max_tokens)))
            while not is_over:
                delta = await queue.get()
                is_over = delta.finish is not None
                yield delta
        finally:
            del self.open[request_id]
            if not is_over:
                await self._link.send(encoder.encode(Cancel(request_id)))

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(5)
        self._link.close()


class Service:
    """The application: chooses a worker and writes what it says."""

    def __init__(self, workers: list[Worker]) -> None:
        self._workers = workers
        self._ids = itertools.count(1)

    async def complete(self, request: Request) -> Response:
        body = _body_decoder.decode(await request.body())
        worker = min(self._workers, key=lambda each: len(each.open))
        request_id = next(self._ids)
        deltas = worker.generate(request_id, body)
        if body.stream:
            return StreamingResponse(_events(request_id, body, deltas), 200, None, SSE)
        text = "".join([delta.text async for delta in deltas])
        return JSONResponse(_completion(request_id, body, text))


async def list_models(_request: Request) -> Response:
    model = {"id": "synthetic", "object": "model", "created": CREATED_S, "owned_by": "baseline",
             "engine": "synthetic", "context_length": 4096, "ready": True}  # fmt: skip
    return JSONResponse({"object": "list", "data": [model]})


async def report_health(_request: Request) -> Response:
    return JSONResponse({"status": "ok"})


SSE: Final = "text/event-stream"


async def _events(
    request_id: int, body: _Body, deltas: AsyncIterator[Delta]
) -> AsyncIterator[bytes]:
    created = int(time.time())
    yield _event(request_id, created, body.model, {"role": "assistant", "content": ""}, None)
    async for delta in deltas:
        content = {"content": delta.text}
        yield _event(request_id, created, body.model, content, None)
        if delta.finish is not None:
            yield _event(request_id, created, body.model, {}, delta.finish)
    yield b"data: [DONE]\n\n"


def _event(
    request_id: int, created: int, model: str, delta: dict[str, str], finish: str | None
) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    chunk = {
        "id": f"chatcmpl-{request_id:032x}",
        "object": "chat.completion.chunk",
        "created": created,
        "model": model,
        "choices": [choice],
    }
    return b"data: " + _json_encoder.encode(chunk) + b"\n\n"


def _completion(request_id: int, body: _Body, text: str) -> dict[str, object]:
    message = {"role": "assistant", "content": text}
    return {
        "id": f"chatcmpl-{request_id:032x}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": body.model,
        "choices": [
            {"index": 0, "message": message, "logprobs": None, "finish_reason": "length"}
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": body.max_tokens,
                  "total_tokens": 1 + body.max_tokens},
    }  # fmt: skip


async def serve(workers_count: int, worker_options: list[str]) -> None:
    """Serve until SIGTERM. Prints one line of JSON when it is ready."""
    # A line for each write to a client that has hung up would cost more than the write.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    # uvicorn raises the signal again when it is done; what comes after must still run.
    signal.signal(signal.SIGTERM, lambda *_: None)
    # Its protocol is named, as uvicorn's own listener does: asyncio turns off Nagle's algorithm
    # only then, and with it a head and a body in two writes would take 40 ms.
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", 0))
    sock.listen(2048)  # before it is announced; uvicorn takes it over
    with tempfile.TemporaryDirectory(prefix="baseline-") as directory:
        workers = [Worker(i, directory, worker_options) for i in range(workers_count)]
        try:
            for worker in workers:
                await worker.wait_ready()
            receivers = [asyncio.create_task(worker.receive()) for worker in workers]
            service = Service(workers)
            app = Starlette(
                routes=[
                    Route("/v1/chat/completions", service.complete, methods=["POST"]),
                    Route("/v1/models", list_models),
                    Route("/health/ready", report_health),
                ]
            )
            config = uvicorn.Config(
                app, log_level="warning", access_log=False, backlog=2048, lifespan="off",
                timeout_graceful_shutdown=2,
            )  # fmt: skip
            pids = [worker.process.pid for worker in workers]
            config.load()
            stack = f"uvicorn {uvicorn.__version__}, {type(asyncio.get_running_loop()).__module__},"
            stack += f" {config.http_protocol_class.__name__}"
            ready = {"port": sock.getsockname()[1], "workers": pids, "stack": stack}
            print(json.dumps(ready), flush=True)
            await uvicorn.Server(config).serve([sock])
            for receiver in receivers:
                receiver.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await receiver
        finally:
            for worker in workers:
                worker.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--tokens-per-s", type=float, default=20.0)
    parser.add_argument("--uvloop", action="store_true", help="run on uvloop, not plain asyncio")
    parser.add_argument("--message-per-token", action="store_true", help="from the workers")
    arguments = parser.parse_args()
    options = ["--tokens-per-s", str(arguments.tokens_per_s)]
    options += ["--message-per-token"] if arguments.message_per_token else []
    uvloop = importlib.import_module("uvloop") if arguments.uvloop else None
    loop_factory = uvloop.new_event_loop if uvloop is not None else None
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(serve(arguments.workers, options))
