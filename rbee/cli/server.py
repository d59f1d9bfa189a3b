"""A running rbee server, seen from the command line: the one file here that speaks HTTP."""

import json
import ssl
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Self

import httpx2
import msgspec
from msgspec import Meta

from rbee.cli.address import Address
from rbee.cli.endings import RefusedError, UnreachableError, UsageError
from rbee.errors import ErrorCode
from rbee.ids import is_worker_id

CONNECT_TIMEOUT_S: Final = 3.0
ANSWER_TIMEOUT_S: Final = 5.0  # of a server that answers from its own state
# Between two events of an answer. The first token may wait for a queue and a restart.
TOKEN_TIMEOUT_S: Final = 600.0

Json = dict[str, Any]

Size = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
"""A number of bytes, as any box may have them."""


class WorkerRow(msgspec.Struct, frozen=True):
    """What the table shows of one slot. All but the slot may be missing: a server of another
    version is still worth a look."""

    slot: str
    model: str = ""
    engine: str = ""
    state: str = ""
    pid: int | None = None
    restarts: int = 0
    failures: int = 0
    last_failure: str = ""
    cause: str = ""
    breaker: str = ""
    remedy: str = ""
    verdict: str | None = None
    concern: str = ""
    retry_in_s: float | None = None
    uptime_s: float | None = None
    phase: str | None = None
    progress: float | None = None
    beat_age_s: float | None = None
    tokens: int = 0
    requests: int = 0
    batch_size: int | None = None
    rss_bytes: Size | None = None
    vram_bytes: Size | None = None
    vram_reserved_bytes: Size | None = None
    waits_for: str = ""
    held_by: dict[str, str] = {}


class GpuRow(msgspec.Struct, frozen=True):
    """What is shown of one GPU."""

    index: int
    state: str = "ok"
    problem: str = ""
    memory_total_bytes: Size = 0
    memory_free_bytes: Size | None = None
    reserved_bytes: Size = 0
    temperature_c: int | None = None


class DiskRow(msgspec.Struct, frozen=True):
    """What is shown of one file system."""

    place: str
    state: str = "ok"
    problem: str = ""


class CrashRow(msgspec.Struct, frozen=True):
    """What the list of crash reports shows of one."""

    id: str
    time: str = ""
    slot: str = ""
    cause: str = ""
    how: str = ""


class Server:
    """One server. Use as a context manager; make a new one after an interrupted answer."""

    def __init__(self, address: Address) -> None:
        """Raises: UsageError: the certificates that it is to be known by cannot be read."""
        self.url = address.url
        self._client = httpx2.Client(
            timeout=httpx2.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            # A proxy of the environment must not come between us and loopback.
            trust_env=False,
            verify=_trust(address),
            headers=_credential(address),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def models(self) -> list[str]:
        """The names of the models, as clients ask for them."""
        listed = self._get("/v1/models").get("data")
        entries = listed if isinstance(listed, list) else []
        return [str(entry["id"]) for entry in entries if isinstance(entry, dict) and "id" in entry]

    def readiness(self) -> str:
        """``ok``, ``starting``, ``unavailable`` or ``draining``."""
        response = self._send("GET", "/health/ready")
        status = _json_of(response).get("status")
        if not isinstance(status, str):
            raise self._strange(response)
        return status

    def workers(self) -> Json:
        """The answer of ``GET /v1/rbee/workers``, as it came."""
        return self._get("/v1/rbee/workers")

    def crashes(self) -> Json:
        """The answer of ``GET /v1/rbee/crashes``, as it came."""
        return self._get("/v1/rbee/crashes")

    def crash(self, crash_id: str) -> Json:
        """One crash report.

        Raises:
          UsageError: there is none of that id; names those that are.
        """
        known = [row.id for row in crash_rows(self.crashes())]
        if crash_id not in known:
            raise UsageError(
                f"no crash report {crash_id!r} at {self.url}; reports are: "
                f"{', '.join(known) or 'none'}"
            )
        return self._get(f"/v1/rbee/crashes/{crash_id}")

    def command_worker(self, slot: str, command: str) -> None:
        """Restart, stop or reset the worker of a slot.

        Raises:
          UsageError: there is no such slot; names those that are.
        """
        known = [row.slot for row in worker_rows(self.workers())]
        if not is_worker_id(slot) or slot not in known:
            raise UsageError(
                f"no slot {slot!r} at {self.url}; slots are: {', '.join(known) or 'none'}"
            )
        response = self._send("POST", f"/v1/rbee/workers/{slot}/{command}")
        if not response.is_success:
            raise self._refusal(response)

    def stream_chat(self, body: Mapping[str, object]) -> Iterator[str]:
        """The pieces of one answer, as they come. Closing the iterator stops the answer.

        Raises:
          RefusedError: the server refused, or gave up in the middle.
          UnreachableError: it is not there, or went away in the middle.
        """
        url = f"{self.url}/v1/chat/completions"
        timeout = httpx2.Timeout(TOKEN_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        content = json.dumps({**body, "stream": True}).encode()
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        has_begun = False
        try:
            with self._client.stream(
                "POST", url, content=content, headers=headers, timeout=timeout
            ) as response:
                if not response.is_success:
                    response.read()
                    raise self._refusal(response)
                has_begun = True
                correlation_id = response.headers.get("X-Correlation-ID", "")
                for event in httpx2.EventSource(response):
                    if event.data == "[DONE]":
                        return
                    yield _piece_of(event.data, correlation_id)
        except httpx2.HTTPError as error:
            raise self._gone(error, has_begun) from error
        raise UnreachableError(f"{self.url} ended the answer before its end")

    def _get(self, path: str) -> Json:
        response = self._send("GET", path)
        if not response.is_success:
            raise self._refusal(response)
        answer = _json_of(response)
        if not answer:
            raise self._strange(response)
        return answer

    def _send(self, method: str, path: str) -> httpx2.Response:
        try:
            return self._client.request(method, self.url + path)
        except httpx2.HTTPError as error:
            raise self._gone(error, has_begun=False) from error

    def _gone(self, error: httpx2.HTTPError, has_begun: bool) -> UnreachableError:
        if has_begun:
            return UnreachableError(f"{self.url} went away in the middle of the answer: {error}")
        if isinstance(error, httpx2.ReadTimeout):
            return UnreachableError(f"{self.url} takes connections, but does not answer")
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            why = str(error).partition("CERTIFICATE_VERIFY_FAILED] ")[2].partition(" (")[0]
            return UnreachableError(
                f"the certificate of {self.url} proves nothing: {why or error}; name whom to trust"
                " with --ca-file"
            )
        if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
            return UnreachableError(
                f"no rbee server answers at {self.url}: start one with `rbee serve`"
            )
        return UnreachableError(f"{self.url}: {error}")

    def _refusal(self, response: httpx2.Response) -> RefusedError | UnreachableError:
        problem = _json_of(response).get("error")
        if not isinstance(problem, dict):
            return self._strange(response)
        return _refusal_of(problem, response.headers.get("X-Correlation-ID", ""))

    def _strange(self, response: httpx2.Response) -> UnreachableError:
        return UnreachableError(
            f"{self.url} does not answer as rbee does: "
            f"{response.request.method} {response.request.url.path} gave {response.status_code}"
        )


def _trust(address: Address) -> ssl.SSLContext | bool:
    """How the server proves to be the one. Making a context takes 20 ms, and http needs none."""
    if not address.url.startswith("https:"):
        return False
    file = address.ca_file or address.own_certificate_file
    if file is None:
        return True
    try:
        if address.ca_file is not None:
            return ssl.create_default_context(cafile=str(file))
        # The first is the server's own. Those behind it have signed others', too.
        own = file.read_text("latin-1").partition(ssl.PEM_FOOTER)
        context = ssl.create_default_context(cadata=ssl.PEM_cert_to_DER_cert("".join(own[:2])))
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or "expected certificates in PEM form"
        raise UsageError(f"{file}: {problem}") from error
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # it is this very one, however it was made
    return context


def _credential(address: Address) -> dict[str, str]:
    """The header that shows a key.

    Raises:
      UsageError: what stands in its file cannot be one.
    """
    if address.key is None:
        return {}
    text = address.key.reveal().decode("ascii", "replace")
    if not text.isascii() or not text.isprintable() or " " in text:
        raise UsageError("the file of the key must hold one key, and nothing else")
    return {"Authorization": f"Bearer {text}"}


def worker_rows(answer: Json) -> list[WorkerRow]:
    """The slots in the answer of ``GET /v1/rbee/workers``.

    Raises:
      UnreachableError: it is not such an answer.
    """
    try:
        return msgspec.convert(answer.get("workers"), list[WorkerRow])
    except msgspec.ValidationError as error:
        raise UnreachableError(f"the server's workers are of another kind: {error}") from error


class BoxRows(msgspec.Struct, frozen=True):
    """What the answer tells of the box; nothing, where the server is of an older version."""

    gpus: list[GpuRow] = []
    disks: list[DiskRow] = []


def box_rows(answer: Json) -> BoxRows:
    """GPUs and file systems in the answer of ``GET /v1/rbee/workers``.

    Raises:
      UnreachableError: it is not such an answer.
    """
    try:
        return msgspec.convert(answer, BoxRows)
    except msgspec.ValidationError as error:
        raise UnreachableError(f"the server's GPUs are of another kind: {error}") from error


def crash_rows(answer: Json) -> list[CrashRow]:
    """The reports in the answer of ``GET /v1/rbee/crashes``, the newest first.

    Raises:
      UnreachableError: it is not such an answer.
    """
    try:
        return msgspec.convert(answer.get("crashes"), list[CrashRow])
    except msgspec.ValidationError as error:
        raise UnreachableError(f"the server's crashes are of another kind: {error}") from error


def _json_of(response: httpx2.Response) -> Json:
    """The answer as a JSON object; empty when it is none: numbers beyond all floats are none."""
    try:
        answer = msgspec.json.decode(response.content)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _refusal_of(problem: Json, correlation_id: str) -> RefusedError:
    message, code = str(problem.get("message") or "refused without a reason"), problem.get("code")
    if code == ErrorCode.INVALID_API_KEY:
        message += " (rbee takes it from --key-file)"
    return RefusedError(
        message,
        str(code or ""),
        str(problem.get("correlation_id") or correlation_id),
    )


def _piece_of(event: str, correlation_id: str) -> str:
    """The text that one event of a stream brings; "" for events without any."""
    try:
        chunk = json.loads(event)
        if isinstance(chunk, dict) and isinstance(chunk.get("error"), dict):
            raise _refusal_of(chunk["error"], correlation_id)
        choices = chunk["choices"]
        text = choices[0]["delta"].get("content") if choices else None
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise UnreachableError("the server sent an event that is no part of an answer") from error
    return text if isinstance(text, str) else ""
