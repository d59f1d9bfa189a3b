"""Who is in the batch, and what it costs the others: prompts, pages, leases, cancels."""

import random
from typing import Any

import pytest

from rbee.engine.exllamav2 import answer as answer_file
from rbee.wire import Phase
from tests.engine.exllamav2.conftest import Driver, ids_of
from tests.engine.exllamav2.folder import CONTEXT, END, TURN_END

NO_END = {END: -100.0, TURN_END: -100.0}


def test_a_long_prompt_is_read_in_chunks_while_others_go_on(loaded: Driver) -> None:
    loaded.job(1, "short", 60, logit_bias=NO_END)
    loaded.engine.step()
    assert loaded.phase() is Phase.DECODE
    loaded.job(2, "x" * 3900, 2, logit_bias=NO_END)
    assert loaded.phase() is Phase.PREFILL
    first = loaded.engine.step()
    assert [each.job_id for each in first] == [1]
    assert loaded.phase() is Phase.PREFILL
    second = loaded.engine.step()
    assert {each.job_id for each in second} == {1, 2}
    assert loaded.phase() is Phase.DECODE


def test_many_prompts_at_once_do_not_make_one_long_step(loaded: Driver) -> None:
    prefilled = []
    generator = loaded.engine._loaded.generator
    iterate = generator.iterate

    def counted() -> Any:
        results = iterate()
        prefilled.append(sum(1 for each in results if each["stage"] == "started"))
        return results

    generator.iterate = counted
    for i in range(10):
        loaded.job(i, f"{i}" + "y" * 1000, 2, logit_bias=NO_END)
    assert len(loaded.run()) == 10
    assert max(prefilled) <= 2  # 2048 tokens of prompts in a step


def test_phase_says_what_the_next_step_does(loaded: Driver) -> None:
    assert loaded.phase() is Phase.IDLE
    assert loaded.engine.step() == []
    loaded.job(1, "hello", 2, logit_bias=NO_END)
    assert loaded.phase() is Phase.PREFILL
    loaded.engine.step()
    assert loaded.phase() is Phase.DECODE
    loaded.engine.step()
    assert loaded.phase() is Phase.IDLE


def test_a_cancelled_job_is_forgotten_wherever_it_stands_and_its_pages_are_free(
    driver: Driver,
) -> None:
    driver.load(cache_tokens=CONTEXT, batch_size=2)
    free = free_pages(driver)
    driver.job(1, "decoding", 500, logit_bias=NO_END)
    driver.engine.step()
    driver.job(2, "z" * 3000, 10)  # does not fit beside the first
    driver.job(3, "waiting", 10)
    driver.engine.step()
    for job_id in (2, 1, 3, 77):
        driver.engine.cancel(job_id)
    assert driver.phase() is Phase.IDLE
    assert driver.engine.step() == []
    assert free_pages(driver) == free
    assert len(driver.answer("afterwards", 5, logit_bias=NO_END)[0]) == 5


def free_pages(driver: Driver) -> Any:
    generator = driver.engine._loaded.generator
    unreferenced = getattr(generator, "unreferenced_pages", None)
    return generator.free_pages if unreferenced is None else len(unreferenced)


def test_jobs_that_do_not_fit_together_take_turns_in_order(driver: Driver) -> None:
    driver.load(cache_tokens=1024, batch_size=8)
    assert driver.info.context_length == 1024
    for i in range(5):
        driver.job(i, "q" * 500, 300, logit_bias=NO_END)
    finished = []
    while driver.phase() is not Phase.IDLE:
        finished += [each.job_id for each in driver.engine.step() if each.finish]
    assert finished == [0, 1, 2, 3, 4]


def test_a_request_without_a_limit_does_not_reserve_the_whole_cache(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_file, "LEASE_TOKENS", 64)
    driver.load(cache_tokens=CONTEXT, batch_size=4)
    prompt = driver.engine.tokenizer.encode("endless", special=False, bos=True)
    for i in range(4):
        driver.job(i, prompt, CONTEXT - len(prompt), logit_bias=NO_END)
    at_once = driver.engine.step()
    assert {each.job_id for each in at_once} == {0, 1, 2, 3}


def test_an_answer_over_several_leases_is_the_same_and_loses_no_token(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver.load(cache_tokens=CONTEXT, batch_size=4)
    how: dict[str, Any] = {
        "temperature": 1.1, "seed": 9, "logit_bias": NO_END, "frequency_penalty": 0.5,
        "logprobs": 1,
    }  # fmt: skip
    driver.job(1, "once upon", 300, **how)
    whole = driver.run()[1]
    monkeypatch.setattr(answer_file, "LEASE_TOKENS", 50)
    for job_id in (2, 3):
        driver.job(job_id, "once upon", 300, **how)
    parts = driver.run()
    assert ids_of(parts[2]) == ids_of(parts[3]) == ids_of(whole)
    assert sum(len(each.logprobs) for each in parts[2]) == 300


def test_an_answer_whose_pages_were_taken_between_two_leases_goes_on(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_file, "LEASE_TOKENS", 40)
    driver.load(cache_tokens=1024, batch_size=4)
    prompts = ["k" * (150 + 40 * i) for i in range(4)]
    alone = [driver.answer(prompt, 200, logit_bias=NO_END) for prompt in prompts]
    for i, prompt in enumerate(prompts):
        driver.job(i, prompt, 200, logit_bias=NO_END)
    together = driver.run()
    assert [ids_of(together[i]) for i in range(4)] == alone


@pytest.mark.parametrize("seed", range(3))
def test_random_traffic_loses_no_answer_and_no_page(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(answer_file, "LEASE_TOKENS", 30)
    driver.load(cache_tokens=1536, batch_size=5)
    draw = random.Random(seed)
    shared = "The bees all begin with the same long words. " * 8
    asked = {
        job_id: (shared[: draw.choice([0, 100, 255, 256, 257, 350])] + f"{draw.random()}",
                 draw.randrange(1, 120))
        for job_id in range(30)
    }  # fmt: skip
    waiting = [*asked]
    open_ids: set[int] = set()
    cancelled: set[int] = set()
    got: dict[int, Any] = {}
    for _ in range(5_000):
        if waiting and draw.random() < 0.3:
            job_id = waiting.pop()
            driver.job(job_id, *asked[job_id], logit_bias=NO_END)
            open_ids.add(job_id)
        if open_ids and draw.random() < 0.02:
            job_id = draw.choice(sorted(open_ids))
            driver.engine.cancel(job_id)
            open_ids.discard(job_id)
            cancelled.add(job_id)
        for result in driver.engine.step():
            assert result.job_id in open_ids
            got.setdefault(result.job_id, []).append(result)
            if result.finish:
                open_ids.discard(result.job_id)
        if not waiting and not open_ids:
            break
    assert driver.phase() is Phase.IDLE
    assert free_pages(driver) == 1536 // 256
    for job_id in asked.keys() - cancelled:
        assert ids_of(got[job_id]) == driver.answer(*asked[job_id], logit_bias=NO_END)


def test_a_cancel_between_two_leases_ends_the_job(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_file, "LEASE_TOKENS", 2)
    driver.load()
    driver.job(1, "hello", 10, logit_bias=NO_END)
    driver.engine.step()
    driver.engine.step()
    driver.engine.cancel(1)
    assert driver.phase() is Phase.IDLE
