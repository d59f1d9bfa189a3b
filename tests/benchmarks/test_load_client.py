"""What the load client counts: every token once, and all that is not as it should be.

The client is built with sanitizers here: a report means that none of them had to complain.
"""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import load_client
import pytest

from .scripted import HEAD, LAST_CHUNK, Piece, answer, chunk, event, scripted_server

TOKENS = 3


@pytest.fixture(scope="module")
def client() -> Path:
    return load_client.build("load-checked")


def ask_once(client: Path, *pieces: Piece, **options: load_client.Option) -> Mapping[str, Any]:
    """The client's report on one stream of three tokens that is answered so."""
    asked: dict[str, load_client.Option] = {
        "begins_per_s": 10.0, "run_s": 0.1, "tokens_min": TOKENS, "tokens_max": TOKENS,
        "hang_up_part": 0.0, **options,
    }  # fmt: skip
    with (
        scripted_server(*pieces) as port,
        load_client.LoadRun(client, "churn", port, asked) as load,
    ):
        return load.report()


@pytest.mark.parametrize("size", [1, 7, 64, 100_000])
def test_an_answer_that_comes_in_pieces_is_read_as_a_whole(client: Path, size: int) -> None:
    whole = answer("0 ", "1 ", "2 ")
    pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
    found = ask_once(client, *pieces)
    assert (found["whole"], found["tokens"], found["faults"]) == (1, 3, {})
    assert (found["lost"], found["duplicated"]) == (0, 0)
    assert (found["tokens_per_event"], found["tokens_per_chunk"]) == (1, 1)


@pytest.mark.parametrize(
    ("contents", "tokens", "lost", "duplicated"),
    [
        (("0 ", "2 "), 2, 1, 0),
        (("0 ", "1 ", "1 ", "2 "), 3, 0, 1),
        (("0 ", "2 ", "1 "), 3, 0, 1),
        ((), 0, 3, 0),
    ],
    ids=["lost", "doubled", "out of turn", "nothing"],
)
def test_a_token_that_is_lost_doubled_or_out_of_turn_shows(
    client: Path, contents: tuple[str, ...], tokens: int, lost: int, duplicated: int
) -> None:
    found = ask_once(client, answer(*contents))
    assert (found["tokens"], found["lost"], found["duplicated"]) == (tokens, lost, duplicated)


def test_merged_tokens_are_told_by_event_by_chunk_and_by_receive(client: Path) -> None:
    merged = chunk(event("0 1 ") + event("2 "))
    end = chunk(event(finish="length") + b": warm\n\ndata: [DONE]\n\n") + LAST_CHUNK
    found = ask_once(client, HEAD + merged + end)
    assert found["whole"] == 1
    assert (found["tokens_per_event"], found["tokens_per_chunk"]) == (1.5, 3)
    assert found["tokens_per_receive"] == 3


@pytest.mark.parametrize(
    ("received", "fault"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n", "status 503"),
        (b"HTTP/1.1 200", "cut"),
        (b"SSH-2.0-x\r\n", "no answer of HTTP/1.1"),
        (HEAD + b"zz\r\n", "no answer of HTTP/1.1"),
        (HEAD + b"3\r\nabcd\r\n", "no answer of HTTP/1.1"),
        (HEAD.replace(b"chunked", b"gzip").replace(b"transfer-encoding", b"content-length"),
         "no answer of HTTP/1.1"),
        (HEAD + chunk(event("0 ")), "cut"),
        (answer("0 ", "1 ", "2 ").replace(chunk(b"data: [DONE]\n\n"), b""), "no [DONE]"),
        (answer("0 ").replace(b'"length"', b"null    "), "no finish_reason"),
        (answer("0 ").replace(b'"length"', b'"stop"  '), "another finish_reason than length"),
        (HEAD + chunk(b'data: {"error":{"code":"x"}}\n\n'), 'error event: {"error":{"code":"x"}}'),
        (HEAD + chunk(b"event: error\ndata: {}\n\n"), "error event: {}"),
        (HEAD + chunk(b"data: hello\n\n"), "event is no chunk: hello"),
        (HEAD + chunk(b"hello\n\n"), "event is no chunk: hello"),
        (HEAD + chunk(b"data: {" + b" " * 70_000 + b"}\n\n"), "event is no chunk"),
        (answer("0 ", "one "), "content is not the next numbers"),
        (answer("0 ", "3 "), "content is not the next numbers"),
        (answer("0 ", "1"), "content is not the next numbers"),
    ],
    ids=["refused", "cut head", "another protocol", "chunk size", "chunk end", "length", "cut",
         "not done", "not finished", "another finish", "error", "named error", "no json",
         "no event", "too long", "text", "number too high", "no space"],
)  # fmt: skip
def test_a_stream_that_does_not_end_as_it_should_has_a_fault(
    client: Path, received: bytes, fault: str
) -> None:
    found = ask_once(client, *(received[at : at + 2000] for at in range(0, len(received), 2000)))
    assert found["whole"] == 0
    assert found["errors"] == 1
    assert next(iter(found["faults"])).startswith(fault)


def test_a_stream_that_is_told_to_hang_up_does_and_that_is_no_error(client: Path) -> None:
    found = ask_once(client, HEAD + chunk(event("0 ") + event("1 ")), 0.2, hang_up_part=1.0)
    assert (found["hung_up"], found["whole"], found["errors"]) == (1, 0, 0)
    assert (found["lost"], found["duplicated"]) == (0, 0)


def test_delay_is_lateness_against_the_pace_from_the_earliest_token(client: Path) -> None:
    # 10 tokens/s: 1 is the earliest against its pace, 0 is 0.1 s behind it, and 2 is late by the
    # 0.5 s that the server waits, less the 0.1 s that the pace allows.
    pieces = (0.6, HEAD + chunk(event("0 ") + event("1 ")), 0.5, chunk(event("2 ")))
    asked: dict[str, load_client.Option] = {
        "streams": 1,
        "tokens_per_s": 10.0,
        "ramp_s": 0.0,
        "measure_s": 1.0,
    }
    with (
        scripted_server(*pieces) as port,
        load_client.LoadRun(client, "steady", port, asked) as load,
    ):
        found = load.report()
    assert found["window_tokens"] == 3
    assert (found["tokens_expected"], found["lost"]) == (20, 17)
    assert found["faults"] == {"cut": 1}
    assert found["delay_p50_ms"] == pytest.approx(100, abs=0.1)
    assert found["delay_max_ms"] >= 400
    assert found["first_token_max_ms"] >= 600


def test_an_answer_without_a_length_ends_with_its_connection(client: Path) -> None:
    whole = b"HTTP/1.1 200 OK\r\n\r\n" + b"".join(map(event, ("0 ", "1 ", "2 ")))
    found = ask_once(client, whole + event(finish="length") + b"data: [DONE]\n\n")
    assert (found["whole"], found["faults"], found["tokens_per_chunk"]) == (1, {}, None)


@pytest.mark.parametrize(
    ("received", "faults"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}", {}),
        (b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n", {"status 500": 1}),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{", {"no whole answer of HTTP/1.1": 1}),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}x", {"no whole answer of HTTP/1.1": 1}),
    ],
    ids=["good", "refused", "cut", "too long"],
)
def test_a_probe_tells_whether_it_was_answered(
    client: Path, received: bytes, faults: dict[str, int]
) -> None:
    asked: dict[str, load_client.Option] = {
        "connections": 1,
        "probes_per_s": 1.0,
        "run_s": 0.3,
        "path": "/x",
    }
    with (
        scripted_server(received) as port,
        load_client.LoadRun(client, "probe", port, asked) as load,
    ):
        found = load.report()
    assert (found["probes"], found["faults"]) == (1, faults)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "usage:"),
        (["steady"], "--port must be given"),
        (["steady", "--port", "0"], "--port must be a whole number from 1 to 65535"),
        (["steady", "--port", "80x"], "--port must be a whole number"),
        (["steady", "--port", "80", "--streams", "1.5"], "--streams must be a whole number"),
        (["steady", "--port", "80", "--measure-s", "nan"], "--measure-s must be a number"),
        (["steady", "--port"], "--port needs a value"),
        (["steady", "--speed", "1"], "there is no option --speed"),
        (["churn", "--port", "1", "--tokens-min", "5", "--tokens-max", "4"], "--tokens-min"),
    ],
)
def test_a_wrong_command_line_is_refused(client: Path, arguments: list[str], message: str) -> None:
    ran = subprocess.run(
        [client, *arguments], capture_output=True, text=True, check=False, timeout=10
    )
    assert ran.returncode == 2
    assert message in ran.stderr


def test_more_descriptors_than_the_system_allows_are_refused_in_words(client: Path) -> None:
    command = f"ulimit -n 500; exec {client} idle --port 9 --connections 1000"
    ran = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, check=False, timeout=10
    )
    assert ran.returncode == 3
    assert "1032 descriptors are needed, and this system allows 500" in ran.stderr


def test_the_help_names_every_mode_and_option(client: Path) -> None:
    told = subprocess.run([client, "--help"], capture_output=True, text=True, check=True).stdout
    for mode in ("steady", "burst", "churn", "closed", "probe", "idle"):
        assert f"\n  {mode} " in told
    for option in ("port", "streams", "hang-up-part", "bodies"):
        assert f"\n  --{option} " in told
