"""Every metric that rbee has: its name, its kind, its labels, and what it says.

Rule 1: base units (seconds, bytes, degrees Celsius), and names as Prometheus wants them.
Rule 2: labels take few values, and none that a client chooses: slots, models that are configured,
        routes of the table, codes of the catalogue. No id, no address, no key.
Rule 3: a name keeps its meaning. Dashboards and alerts rely on it; docs/metrics.md lists all.
"""

import enum
from dataclasses import dataclass
from typing import Final


class Kind(enum.Enum):
    """What may become of a value."""

    COUNTER = "counter"  # it grows; from 0 again when the server, or the worker, is another
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Family:
    """One metric with all of its label values."""

    name: str  # as scraped; of a counter with "_total", of a histogram without "_bucket"
    kind: Kind
    labels: tuple[str, ...]
    help: str


_made: Final[list[Family]] = []


def _family(kind: Kind, name: str, labels: str, help_: str) -> Family:
    made = Family(name, kind, tuple(labels.split()), help_)
    _made.append(made)
    return made


def _counter(name: str, labels: str, help_: str) -> Family:
    return _family(Kind.COUNTER, name, labels, help_)


def _gauge(name: str, labels: str, help_: str) -> Family:
    return _family(Kind.GAUGE, name, labels, help_)


def _histogram(name: str, labels: str, help_: str) -> Family:
    return _family(Kind.HISTOGRAM, name, labels, help_)


# --- the server

BUILD_INFO: Final = _gauge("rbee_build_info", "version", "1; the version that runs.")
READINESS: Final = _gauge(
    "rbee_readiness", "state", "1 for what /health/ready says, 0 for the other states."
)
OPEN_REQUESTS: Final = _gauge(
    "rbee_open_requests", "", "Requests for tokens that were admitted and have not ended."
)
QUEUED_REQUESTS: Final = _gauge("rbee_queued_requests", "model", "Those that wait for a worker.")
QUEUE_WAIT: Final = _histogram(
    "rbee_queue_wait_seconds", "model", "From admission until a request is sent to a worker."
)
DRAINING: Final = _gauge(
    "rbee_draining_seconds", "", "For how long the server has been draining; 0 if it is not."
)

# --- requests

HTTP_REQUESTS: Final = _counter(
    "rbee_http_requests_total",
    "method route status",
    'Requests that have ended, of any kind; status "none": the client had gone before an answer.',
)
HTTP_DURATION: Final = _histogram(
    "rbee_http_request_duration_seconds",
    "route",
    "From the head of a request until its answer was handed over, or it ended without one.",
)
REQUESTS: Final = _counter(
    "rbee_requests_total",
    "route model outcome",
    'Requests for tokens that have ended: "ok", a code of docs/errors.md, "client_gone", …',
)
FIRST_TOKEN: Final = _histogram(
    "rbee_time_to_first_token_seconds", "model", "From the head of a request to its first token."
)
INTER_TOKEN: Final = _histogram(
    "rbee_inter_token_time_seconds",
    "model",
    "Between two tokens of one answer; tokens that came together share the time before them.",
)
PROMPT_TOKENS: Final = _counter(
    "rbee_prompt_tokens_total", "model", "Tokens of prompts whose answers have ended."
)
COMPLETION_TOKENS: Final = _counter(
    "rbee_completion_tokens_total", "model", "Tokens that were brought to clients."
)
FAILOVERS: Final = _counter(
    "rbee_failovers_total", "model", "Answers that went on at another worker, each time they did."
)
AUTH_FAILURES: Final = _counter(
    "rbee_auth_failures_total", "reason", "Requests that were not let in: missing, wrong, …"
)

# --- workers: slots keep their names over all restarts

WORKERS: Final = _gauge("rbee_workers", "model state", "Slots by the state of their worker.")
WORKER_UP: Final = _gauge("rbee_worker_up", "slot model", "1 if the worker takes requests.")
WORKER_RESTARTS: Final = _counter(
    "rbee_worker_restarts_total", "slot model", "How often the slot was filled again."
)
WORKER_FAILURES: Final = _counter(
    "rbee_worker_failures_total", "slot model cause", "Workers that failed: crash, hang, …"
)
WORKER_KILLS: Final = _counter(
    "rbee_worker_kills_total", "slot model signal", "Signals that were sent to end a worker."
)
WORKER_FAILURES_IN_A_ROW: Final = _gauge(
    "rbee_worker_failures_in_a_row", "slot model", "What the breaker counts."
)
WORKER_BREAKER: Final = _gauge(
    "rbee_worker_breaker", "slot model state", "1 for the breaker's state, 0 for the others."
)
WORKER_LOAD: Final = _histogram(
    "rbee_worker_load_seconds", "model", "From the start of a worker until it was ready."
)
WORKER_UPTIME: Final = _gauge("rbee_worker_uptime_seconds", "slot model", "Of the process.")
WORKER_BEAT_AGE: Final = _gauge(
    "rbee_worker_heartbeat_age_seconds", "slot model", "Since the last beat, or the start."
)
WORKER_REQUESTS: Final = _gauge("rbee_worker_requests", "slot model", "Open on the worker.")
WORKER_BATCH: Final = _gauge(
    "rbee_worker_batch_size", "slot model", "How many it works on at once, at most."
)
WORKER_STEPS: Final = _counter(
    "rbee_worker_steps_total", "slot model", "Engine steps of the process, as of its last beat."
)
WORKER_CPU: Final = _counter(
    "rbee_worker_cpu_seconds_total", "slot model", "Processor time of the process."
)
WORKER_RESIDENT: Final = _gauge(
    "rbee_worker_resident_memory_bytes", "slot model", "As of the last beat."
)
WORKER_VRAM: Final = _gauge(
    "rbee_worker_vram_bytes", "slot model", "What it holds of its GPU, by NVML where that tells."
)
WORKER_VRAM_RESERVED: Final = _gauge(
    "rbee_worker_vram_reserved_bytes", "slot model", "What is kept for it of its GPU."
)
CRASH_REPORTS: Final = _gauge("rbee_crash_reports", "", "That are kept: rbee crashes list.")

# --- the box

GPU_INFO: Final = _gauge("rbee_gpu_info", "gpu name measured_by", "1; a GPU that workers use.")
GPU_STATE: Final = _gauge(
    "rbee_gpu_state", "gpu state", "1 for the GPU's state, 0 for the others: ok, hot, …"
)
GPU_MEMORY: Final = _gauge("rbee_gpu_memory_bytes", "gpu", "All that it has.")
GPU_MEMORY_FREE: Final = _gauge("rbee_gpu_memory_free_bytes", "gpu", "As NVML says.")
GPU_MEMORY_RESERVED: Final = _gauge("rbee_gpu_memory_reserved_bytes", "gpu", "For workers.")
GPU_TEMPERATURE: Final = _gauge("rbee_gpu_temperature_celsius", "gpu", "As NVML says.")
GPU_TEMPERATURE_LIMIT: Final = _gauge(
    "rbee_gpu_temperature_limit_celsius", "gpu", "From here on it takes no new worker."
)
DISK_STATE: Final = _gauge(
    "rbee_disk_state", "place state", "1 for the state of the disk that a folder is on."
)
DISK_FREE: Final = _gauge("rbee_disk_free_bytes", "place", "What is left there.")
DISK_SIZE: Final = _gauge("rbee_disk_size_bytes", "place", "All that there is.")

# --- the audit log

AUDIT_STATE: Final = _gauge(
    "rbee_audit_state", "state", "1 for its state, 0 for the others: recording, failing, …"
)
AUDIT_ENTRIES: Final = _counter(
    "rbee_audit_entries_total", "", "The number of the last entry; it outlives the server."
)
AUDIT_WAITING: Final = _gauge("rbee_audit_waiting", "", "Events that are not written yet.")
AUDIT_LOST: Final = _counter("rbee_audit_lost_total", "", "Events that found no room.")

# --- the last shutdown: whoever asked for it was gone before it was over, so the next server tells

LAST_SHUTDOWN: Final = _gauge(
    "rbee_last_shutdown_duration_seconds",
    "part",
    'How long the shutdown before this start took: "drain", "faces", "workers".'
    " Absent if the server before was killed, or there was none.",
)
LAST_SHUTDOWN_CUT: Final = _gauge(
    "rbee_last_shutdown_cut_requests", "", "Requests that had not ended when draining was over."
)
LAST_SHUTDOWN_KILLED: Final = _gauge(
    "rbee_last_shutdown_killed_workers", "", "Workers that had to be sent a signal."
)

FAMILIES: Final = tuple(_made)
