"""Grammars over a generator: the fake one everywhere, the real one where it can be built."""

import json
from typing import Any

import numpy as np
import pytest

from rbee.engine.engine import JobFailed
from rbee.engine.exllamav2 import answer as answer_file
from rbee.errors import ErrorCode, RequestError
from rbee.wire import Phase
from tests.engine.exllamav2.conftest import Driver, ids_of
from tests.engine.exllamav2.folder import END, TURN_END, VOCABULARY

NO_END = {END: -100.0, TURN_END: -100.0}


class FailingGrammar:
    """Lets three tokens pass."""

    def __init__(self, fails_in: str) -> None:
        self.fails_in, self.left = fails_in, 3

    def _count(self, where: Any) -> Any:
        if where == self.fails_in:
            self.left -= 1
            if self.left == 0:
                raise RequestError(ErrorCode.INTERNAL_ERROR, "the grammar is lost")

    is_finished = False

    def mask(self) -> Any:
        self._count("mask")
        return np.arange(VOCABULARY) == ord("a")

    def advance(self, token_id: int) -> Any:
        self._count("advance")


class Grammars:
    def __init__(self, grammar: Any) -> None:
        self.grammar = grammar

    def json_schema(self, schema: Any, token_ids: Any = (), salt: bytes = b"") -> Any:
        return self.grammar


@pytest.mark.parametrize("fails_in", ["mask", "advance"])
def test_a_grammar_that_fails_fails_its_own_job_alone(loaded: Driver, fails_in: str) -> None:
    loaded.engine._grammars = Grammars(FailingGrammar(fails_in))
    loaded.job(1, "hello", 10, json_schema="{}")
    loaded.job(2, "hello", 10, logit_bias=NO_END)
    loaded.job(3, "hello you", 10, logit_bias=NO_END)
    by_job = loaded.run()
    assert isinstance(by_job[1][-1], JobFailed)
    assert by_job[1][-1].error.message == "the grammar is lost"
    assert set(ids_of(by_job[1][:-1])[0]) == {ord("a")}
    assert len(ids_of(by_job[2])[0]) == len(ids_of(by_job[3])[0]) == 10


@pytest.mark.parametrize("jobs", [1, 5])
def test_a_grammar_holds_over_leases_and_beside_other_jobs(
    loaded: Driver, monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    monkeypatch.setattr(answer_file, "LEASE_TOKENS", 4)
    word = b"abcdefghij"

    class Alphabet:
        at = 0

        is_finished = False

        def mask(self) -> Any:
            allowed = np.zeros(VOCABULARY, dtype=np.bool_)
            allowed[word[self.at] if self.at < len(word) else END] = True
            return allowed

        def advance(self, token_id: int) -> Any:
            assert token_id == word[self.at]
            self.at += 1

    for job_id in range(jobs):
        loaded.engine._grammars = Grammars(Alphabet())
        loaded.job(job_id, f"spell {job_id}", 50, temperature=1.0, json_schema="{}")
    by_job = loaded.run()
    assert [ids_of(by_job[i]) for i in range(jobs)] == [([*word], "stop")] * jobs


SCHEMA = json.dumps({
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 5}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
})  # fmt: skip


# The models of the stands draw at random: they would fill an answer with white space.
TERSE = {**dict.fromkeys(b" \t\r\n", -100.0), ord("}"): 3.0}


def text_of(ids: Any) -> Any:
    return bytes(ids).decode()


@pytest.mark.parametrize("jobs", [1, 4])
def test_an_answer_by_a_schema_matches_it(loaded: Driver, jobs: int) -> None:
    for job_id in range(jobs):
        loaded.job(job_id, "who?", 400, temperature=1.0, seed=job_id, json_schema=SCHEMA,
                   logit_bias=TERSE)  # fmt: skip
    for results in loaded.run().values():
        ids, finish = ids_of(results)
        value = json.loads(text_of(ids))
        assert set(value) == {"name", "age"}
        assert isinstance(value["age"], int)
        assert finish == "stop"


def test_a_resumed_answer_by_a_schema_goes_on_inside_of_it(loaded: Driver) -> None:
    prompt = [*b"who?"]
    begun = [*b'{"name":"ann","a']
    ids, finish = loaded.answer(
        prompt + begun, 400, json_schema=SCHEMA, resumed=len(begun), logit_bias={ord("}"): 50.0}
    )
    assert json.loads(text_of(begun + ids))["name"] == "ann"
    assert finish == "stop"


def test_a_schema_that_cannot_be_followed_is_refused_and_nothing_is_taken(loaded: Driver) -> None:
    with pytest.raises(RequestError) as caught:
        loaded.job(1, "who?", 5, json_schema="no schema")
    assert caught.value.param == "response_format"
    assert loaded.phase() is Phase.IDLE
