"""Whose pages of the cache a job finds: those of its own client, and no others."""

from typing import Any

import pytest

from tests.engine.exllamav2.conftest import Driver
from tests.engine.exllamav2.folder import END, TURN_END

NO_END = {END: -100.0, TURN_END: -100.0}
PAGE = 256


class Watched:
    """A driver whose jobs tell how much of their prompts they found in the cache."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._natives: dict[int, Any] = {}
        generator = driver.engine._loaded.generator
        enqueue = generator.enqueue

        def enqueue_watched(native: Any) -> Any:
            self._natives[native.identifier] = native
            return enqueue(native)

        generator.enqueue = enqueue_watched
        self._last_id = 0

    def begin(self, prompt: list[int], salt: bytes, tokens_max: int = 3) -> int:
        self._last_id += 1
        self._driver.job(self._last_id, prompt, tokens_max, cache_salt=salt, logit_bias=NO_END)
        return self._last_id

    def known(self, job_id: int) -> int:
        native = self._natives[job_id]
        return int(native.cached_pages * PAGE + getattr(native, "cached_tokens", 0))

    def ask(self, prompt: list[int], salt: bytes, tokens_max: int = 3) -> tuple[int, list[int]]:
        """How many tokens of a prompt were known, and the answer."""
        job_id = self.begin(prompt, salt, tokens_max)
        told = self._driver.run()[job_id]
        return self.known(job_id), [i for each in told for i in each.token_ids]


@pytest.fixture
def watched(loaded: Driver) -> Watched:
    return Watched(loaded)


def prompt_of(length: int, last: int = 0) -> list[int]:
    return [*((7 * i + i // 64) % 200 for i in range(length - 1)), last]


@pytest.mark.parametrize("length", [3 * PAGE + 40, PAGE + 1, 2 * PAGE])
def test_full_pages_are_found_by_their_own_client_alone(watched: Watched, length: int) -> None:
    prompt = prompt_of(length)
    full = (length - 1) // PAGE * PAGE
    unknown, first = watched.ask(prompt, b"mine")
    assert unknown == 0
    assert watched.ask(prompt, b"another's") == (0, first)
    for salt in (b"mine", b"another's"):
        known, again = watched.ask(prompt, salt)
        assert known >= full
        assert again == first


def test_what_is_shared_by_all_is_found_by_all(watched: Watched) -> None:
    prompt = prompt_of(2 * PAGE + 10)
    _, first = watched.ask(prompt, b"")
    known, again = watched.ask(prompt, b"")
    assert known >= 2 * PAGE
    assert again == first
    assert watched.ask(prompt, b"mine") == (0, first)


def test_a_running_job_is_not_seen_by_others(watched: Watched, loaded: Driver) -> None:
    prompt = prompt_of(2 * PAGE + 10)
    running = watched.begin(prompt, b"mine", 200)
    loaded.engine.step()
    other = watched.begin(prompt, b"another's", 2)
    own = watched.begin(prompt, b"mine", 2)
    loaded.run()
    assert (watched.known(running), watched.known(other)) == (0, 0)
    assert watched.known(own) >= 2 * PAGE


def test_a_page_that_is_not_full_is_found_by_its_own_client_alone(
    watched: Watched, stand: str
) -> None:
    if stand == "fake":
        pytest.skip("the fake knows no pages that are not full")
    _, first = watched.ask(prompt_of(100), b"mine")
    assert watched.ask(prompt_of(100), b"another's") == (0, first)
    assert watched.ask(prompt_of(100, last=9), b"mine")[0] == 99
    assert watched.ask(prompt_of(100), b"mine") == (99, first)
    assert watched.ask([*prompt_of(100)[:50], 9], b"a third one's")[0] == 0


@pytest.mark.parametrize("length", [1, 200, PAGE + 100])
def test_pages_that_an_answer_has_filled_are_found_by_its_own_client_alone(
    watched: Watched, stand: str, length: int
) -> None:
    if stand == "fake":
        pytest.skip("the fake keeps no pages of answers")
    prompt = prompt_of(length, last=3)
    _, answer = watched.ask(prompt, b"mine", 2 * PAGE)
    longer = [*prompt, *answer, 5]
    assert watched.ask(longer, b"another's")[0] == 0
    assert watched.ask(longer, b"mine")[0] >= (len(longer) - 2) // PAGE * PAGE
    # The same answer for a third one fills pages with the same tokens, and shares none.
    assert watched.ask(prompt, b"a third one's", 2 * PAGE) == (0, answer)


def test_the_library_is_as_it_was_between_two_calls(watched: Watched, loaded: Driver) -> None:
    module = loaded.engine._library.pages
    plain = module._tensor_hash_checksum
    watched.ask(prompt_of(2 * PAGE), b"mine", PAGE)
    assert module._tensor_hash_checksum is plain
