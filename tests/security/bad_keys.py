"""What does the bearer of a good key notice while others try keys that are none?

``python -m tests.security.bad_keys`` starts a real server, and two processes beside it: one asks
with 1000 bad keys a second, each of them once, the other with a good one. It prints what became of
them; exit code 1: an answer to the good key was missing, or too late at the 99th percentile
(goal: below 20 ms).
"""

import argparse
import contextlib
import http.client
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from rbee.supervisor.access.api_key import new_key
from tests.access.keys import forged
from tests.e2e.server import Server, synthetic_config
from tests.specs.access_room import keep

P99_MS_MAX: Final = 20.0
GOOD_PER_S: Final = 100
_CONNECTIONS: Final = 4  # of those who try
_MODELS: Final = "/v1/models"


def attack(url: str, per_s: int, seconds: float, known_id: str) -> Counter[int]:
    """Ask with bad keys, at a steady pace, as far as this machine goes.

    Returns:
      How many got each status.
    """
    statuses: Counter[int] = Counter()
    threads = [
        threading.Thread(
            target=_ask_on, args=(url, per_s / _CONNECTIONS, seconds, known_id, statuses)
        )
        for _ in range(_CONNECTIONS)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return statuses


def _ask_on(url: str, per_s: float, seconds: float, known_id: str, statuses: Counter[int]) -> None:
    begun_s = time.monotonic()
    with contextlib.closing(_connect(url)) as connection:
        for number in range(int(per_s * seconds)):
            key = new_key() if number % 2 else forged(known_id)
            statuses[_get(connection, key.text)] += 1
            time.sleep(max(0.0, begun_s + (number + 1) / per_s - time.monotonic()))
            if time.monotonic() - begun_s > seconds:
                return


def ask_well(url: str, key: str, seconds: float) -> list[float]:
    """Ask with a good key, at a steady pace.

    Returns:
      Milliseconds of each answer.
    """
    taken_ms: list[float] = []
    begun_s = time.monotonic()
    with contextlib.closing(_connect(url)) as connection:
        while (sent_s := time.monotonic()) - begun_s < seconds:
            status = _get(connection, key)
            assert status == 200, status
            taken_ms.append((time.monotonic() - sent_s) * 1000)
            time.sleep(max(0.0, begun_s + len(taken_ms) / GOOD_PER_S - time.monotonic()))
    return sorted(taken_ms)


def _connect(url: str) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    return http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=30)


def _get(connection: http.client.HTTPConnection, key: str) -> int:
    """The status of one answer, once it was read."""
    connection.request("GET", _MODELS, headers={"Authorization": f"Bearer {key}"})
    answer = connection.getresponse()
    answer.read()
    return answer.status


def percentile(ordered: list[float], part: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def measure(folder: Path, per_s: int, seconds: float) -> tuple[list[float], dict[str, int]]:
    """Start a server, and let both kinds ask it for so long."""
    key = keep(folder / "state")
    config = synthetic_config(head=f'[server]\nstate_dir = "{folder / "state"}"\n')
    server = Server(folder, config)
    try:
        url = server.ready().url
        ask_well(url, key, 0.1)  # from now on it is known
        command = [sys.executable, "-m", "tests.security.bad_keys", "--attack", url]
        options = ["--per-s", str(per_s), "--seconds", str(seconds), "--id", key.split("_")[1]]
        attacker = subprocess.Popen([*command, *options], stdout=subprocess.PIPE)
        try:
            taken_ms = ask_well(url, key, seconds)
            told, _ = attacker.communicate(timeout=60)
        finally:
            attacker.kill()
            attacker.wait()
        statuses: dict[str, int] = json.loads(told)
        return taken_ms, statuses
    finally:
        server.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--per-s", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--attack", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--id", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.attack:
        print(
            json.dumps(attack(arguments.attack, arguments.per_s, arguments.seconds, arguments.id))
        )
        return 0
    with tempfile.TemporaryDirectory(prefix="rbee-bad-keys-") as folder:
        taken_ms, statuses = measure(Path(folder), arguments.per_s, arguments.seconds)
    p99_ms = percentile(taken_ms, 0.99)
    became = ", ".join(f"{count} got {status}" for status, count in sorted(statuses.items()))
    print(f"bad keys:  {sum(statuses.values())} in {arguments.seconds:g} s; {became}")
    print(
        f"good key:  {len(taken_ms)} answers, p50 {percentile(taken_ms, 0.5):.2f} ms,"
        f" p99 {p99_ms:.2f} ms (limit {P99_MS_MAX:g} ms), longest {taken_ms[-1]:.2f} ms"
    )
    return 0 if p99_ms < P99_MS_MAX and not set(statuses) - {"401", "429"} else 1


if __name__ == "__main__":
    sys.exit(main())
