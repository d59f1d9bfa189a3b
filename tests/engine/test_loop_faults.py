"""The worker's two threads when something goes wrong: one request at most, and no word lost."""

import errno
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq

from rbee.ask import Ask
from rbee.config import ModelConfig
from rbee.dialogue import SupervisorDialogue
from rbee.engine.engine import EngineInfo, Job, JobFailed, LoadSpec, Progress, Sampled
from rbee.engine.link_thread import HEARD_S_MAX, LinkThread, Published
from rbee.engine.loop import WorkerLoop
from rbee.engine.step_times import ReadingPace, StepTimes
from rbee.engine.synthetic import SyntheticEngine
from rbee.errors import ErrorCode, ExitCode, RequestError
from rbee.transport.thread_link import ThreadLink
from rbee.wire import Bye, Failed, FromWorker, Step, Stop, Welcome, encode

SECRET = b"s" * 32
MODEL = ModelConfig(ref="synthetic", name="m", engine="synthetic")


class PlainLink:
    """A link without a thread: what is to come in is there, what goes out is kept."""

    def __init__(self, asks: int) -> None:
        self.published = Published()
        self.step_times = StepTimes()
        self.reading = ReadingPace()
        self.ignores_stop = False
        self.stop_asked = False
        self.heard: list[FromWorker | None] = []
        self._asks = asks
        self._dialogue = SupervisorDialogue(SECRET, os.getpid())
        self._inbox: list[list[bytes]] = []

    def start_beating(self, beat_s: float) -> None:
        return

    def send(self, frames: list[bytes], *, may_rest: bool = False) -> None:
        message = self._dialogue.receive(frames)
        self.heard.append(message)
        match type(message).__name__:
            case "Hello":
                self._inbox.append(self._dialogue.welcome(Welcome(MODEL, "", 1, 5.0)))
            case "Ready":
                ask = Ask(model="m", prompt="hi", tokens_max=2)
                for number in range(1, self._asks + 1):
                    self._inbox.append(self._dialogue.generate(number, ask, 10_000, "cid"))
        if self._dialogue.stage.value == "serving" and not self._dialogue.open_requests:
            self._inbox.append(encode(Stop()))

    def take(self, timeout_s: float | None) -> list[list[bytes]]:
        taken, self._inbox = self._inbox, []
        return taken

    @property
    def has_received(self) -> bool:
        return bool(self._inbox)

    def close(self) -> None:
        return


def lived(engine: SyntheticEngine, asks: int = 1) -> tuple[ExitCode, list[FromWorker | None]]:
    link = PlainLink(asks)
    loop = WorkerLoop(link, SECRET, lambda _name: engine)  # type: ignore[arg-type]
    return loop.run(), link.heard


def test_a_folder_that_is_closed_to_the_worker_is_told_and_not_tried_again() -> None:
    class Refused(SyntheticEngine):
        def load(self, spec: LoadSpec, progress: Progress) -> EngineInfo:
            raise PermissionError(errno.EACCES, "Permission denied", "/srv/closed")

    code, heard = lived(Refused())
    assert code is ExitCode.CONFIG
    told = f"/srv/closed: Permission denied for uid {os.geteuid()}"
    assert heard[-1] == Bye(told, int(ExitCode.CONFIG))


def test_a_job_that_fails_in_the_step_that_brought_it_a_token_has_one_last_word() -> None:
    class Failing(SyntheticEngine):
        def step(self) -> list[Sampled | JobFailed]:
            results = super().step()
            error = RequestError(ErrorCode.ENGINE_FAILED, "x" * 10_000)
            return [*results, *(JobFailed(each.job_id, error) for each in results)]

    code, heard = lived(Failing())
    assert code is ExitCode.OK
    words = [each for each in heard if isinstance(each, Step | Failed)]
    assert [type(each) for each in words] == [Step, Failed]


def test_an_engine_that_gets_no_descriptor_ends_its_worker_by_that_name() -> None:
    class Leaking(SyntheticEngine):
        def step(self) -> list[Sampled | JobFailed]:
            raise OSError(errno.EMFILE, "Too many open files")

    code, heard = lived(Leaking())
    assert code is ExitCode.OS_ERROR
    assert isinstance(heard[-1], Bye)
    assert heard[-1].exit_code == ExitCode.OS_ERROR


def test_a_panic_that_is_no_exception_ends_one_request(capfd: pytest.CaptureFixture[str]) -> None:
    class PanicError(BaseException):
        """As pyo3 has it."""

    class Panicking(SyntheticEngine):
        def enqueue(self, job: Job) -> None:
            if job.job_id == 1:
                raise PanicError("index out of bounds")
            super().enqueue(job)

    code, heard = lived(Panicking(), asks=2)
    assert code is ExitCode.OK
    [failed] = [each for each in heard if isinstance(each, Failed)]
    assert (failed.request_id, failed.code) == (1, ErrorCode.INTERNAL_ERROR)
    assert any(isinstance(each, Step) for each in heard)
    # One line, which the log has under the request's id; and not what the library says of it.
    [line] = [each for each in capfd.readouterr().err.splitlines() if "bug in request" in each]
    assert "correlation_id=cid" in line
    assert "PanicError at " in line
    assert "index out of bounds" not in line


def test_a_word_that_is_queued_as_the_link_closes_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    life_read, life_write = os.pipe()
    link = LinkThread(tmp_path / "link", life_read)
    looked, said = threading.Event(), threading.Event()
    look: Callable[[ThreadLink], bool] = link._send_all

    def look_while_the_main_thread_is_quick(to: ThreadLink) -> bool:
        is_done = look(to)
        if is_done and not looked.is_set():
            looked.set()
            said.wait(5)
        return is_done

    monkeypatch.setattr(link, "_send_all", look_while_the_main_thread_is_quick)
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.bind(f"ipc://{tmp_path / 'link'}")
    link.start()
    link._wake()
    assert looked.wait(5)
    link.send([b"the last word"])
    link._is_closing = True
    said.set()
    assert socket.poll(5000), "it was not sent"
    socket.send_multipart(encode(Stop()))
    link.close()
    assert socket.recv_multipart() == [b"the last word"]
    socket.close(linger=0)
    context.term()
    os.close(life_read)
    os.close(life_write)


@pytest.mark.parametrize("is_answered", [True, False])
def test_the_last_of_many_words_is_heard_before_the_link_closes(
    is_answered: bool, tmp_path: Path
) -> None:
    # More than all queues between the two hold, for a supervisor that is busy meanwhile.
    words, heard = 300, list[bytes]()
    life_read, life_write = os.pipe()
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.RCVHWM, 64)
    socket.bind(f"ipc://{tmp_path / 'link'}")
    link = LinkThread(tmp_path / "link", life_read)
    link.start()

    def speak() -> None:
        for word in range(words):
            link.send([b"%d" % word])
        link.close()

    speaking = threading.Thread(target=speak)
    speaking.start()
    while len(heard) < words:
        assert socket.poll(5000), f"lost after {len(heard)} of {words}"
        heard.append(socket.recv())
    begun_s = time.monotonic()
    assert link._thread.is_alive(), "it did not wait to be heard"
    if is_answered:
        socket.send_multipart(encode(Stop()))
    speaking.join(5)
    took_s = time.monotonic() - begun_s
    assert not speaking.is_alive()
    assert took_s < 0.5 if is_answered else HEARD_S_MAX - 0.5 < took_s < HEARD_S_MAX + 1
    assert heard == [b"%d" % word for word in range(words)]
    socket.close(linger=0)
    context.term()
    os.close(life_read)
    os.close(life_write)


@pytest.mark.parametrize(
    ("link_path", "exit_code", "told"),
    [
        ("/" + "x" * 300, ExitCode.SOFTWARE, b"ZMQError"),
        ("/no/such/w-0", ExitCode.OS_ERROR, b"the supervisor's socket is gone"),
    ],
)
def test_a_worker_whose_link_cannot_be_opened_ends(
    link_path: str, exit_code: ExitCode, told: bytes
) -> None:
    boot_read, boot_write = os.pipe()
    life_read, life_write = os.pipe()
    boot = {"worker_id": "w-0", "link_path": link_path, "secret_hex": SECRET.hex()}
    os.write(boot_write, json.dumps(boot).encode())
    os.close(boot_write)
    command = [sys.executable, "-m", "rbee.engine", str(boot_read), str(life_read)]
    ended = subprocess.run(
        command, pass_fds=(boot_read, life_read), timeout=30, capture_output=True, check=False
    )
    for descriptor in (boot_read, life_read, life_write):
        os.close(descriptor)
    assert ended.returncode == exit_code
    assert told in ended.stderr
