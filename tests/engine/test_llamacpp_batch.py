"""Which tokens go into a batch, and which sequence a job gets: pure decisions."""

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from rbee.engine.llamacpp.batch import (
    STEP_S_MAX,
    Chunk,
    Due,
    PrefillPace,
    plan_batch,
    plan_exact,
)
from rbee.engine.llamacpp.sequences import Sequences, common_length


def test_decoding_jobs_are_in_every_batch() -> None:
    assert plan_batch([1, 900, 1], 512) == [
        Chunk(0, 1, is_last=True),
        Chunk(1, 512, is_last=False),
        Chunk(2, 1, is_last=True),
    ]


def test_oldest_prompt_is_read_first() -> None:
    assert plan_batch([300, 300, 300], 512) == [
        Chunk(0, 300, is_last=True),
        Chunk(1, 212, is_last=False),
    ]


@given(st.lists(st.integers(1, 2000), max_size=40), st.integers(1, 512))
def test_plan_is_bounded_and_moves_on(pending: list[int], prefill_max: int) -> None:
    chunks = plan_batch(pending, prefill_max)
    assert bool(chunks) == bool(pending)
    assert sum(chunk.count for chunk in chunks if pending[chunk.index] > 1) <= prefill_max
    for chunk in chunks:
        assert 1 <= chunk.count <= pending[chunk.index]
        assert chunk.is_last == (chunk.count == pending[chunk.index])


def test_exact_passes_keep_answers_together_and_each_prompt_alone() -> None:
    due = [Due(0, 1), Due(300, 0), Due(0, 7), Due(20, 5)]
    assert plan_exact(due, 512) == [
        [Chunk(0, 1, is_last=True), Chunk(2, 1, is_last=False)],
        [Chunk(1, 300, is_last=True)],
        [Chunk(3, 20, is_last=False)],
    ]


@given(
    st.lists(st.builds(Due, st.integers(0, 1500), st.integers(1, 9)), min_size=1, max_size=20),
    st.sampled_from([32, 64, 512]),
)
def test_exact_passes_never_cut_a_prompt_down_to_one_token(due: list[Due], room: int) -> None:
    passes = plan_exact(due, room)
    answers = [index for index, job in enumerate(due) if not job.prompt]
    if answers:
        assert [chunk.index for chunk in passes[0]] == answers
        assert all(chunk.count == 1 for chunk in passes[0])
    prompts = passes[1:] if answers else passes
    assert sum(chunk.count for [chunk] in prompts) <= room
    assert prompts or all(not job.prompt for job in due), "the oldest prompt advances"
    for [chunk] in prompts:
        prompt = due[chunk.index].prompt
        assert chunk.count >= 2 or prompt == 1
        assert prompt - chunk.count != 1


def test_pace_shrinks_for_a_slow_model_and_grows_back() -> None:
    pace = PrefillPace(512)
    assert pace.tokens == 512
    pace.note(512, 512 / 300)  # 300 tokens a second
    assert pace.tokens == 64
    assert pace.tokens / 300 <= STEP_S_MAX
    pace.note(64, 0.001)
    assert pace.tokens == 512


def test_pace_learns_nothing_from_small_steps() -> None:
    pace = PrefillPace(512)
    pace.note(4, 10.0)
    assert pace.tokens == 512


@given(st.lists(st.integers(0, 2), max_size=200), st.lists(st.integers(0, 2), max_size=200))
def test_common_length_is_that_of_a_plain_loop(first: list[int], second: list[int]) -> None:
    plain = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        plain += 1
    assert common_length(first, second) == plain


class FakeMemory:
    """What the cache would hold, by the calls that reach it."""

    def __init__(self, *, is_recurrent: bool = False) -> None:
        self.held: dict[int, list[int]] = {}
        self.copies = 0
        self._is_recurrent = is_recurrent

    def remove(self, sequence: int, position: int) -> bool:
        held = self.held.setdefault(sequence, [])
        if self._is_recurrent and 0 < position < len(held):
            return False
        del held[position:]
        return True

    def copy(self, source: int, target: int) -> None:
        assert not self.held.get(target), "a copy goes into an empty sequence"
        self.held[target] = list(self.held[source])
        self.copies += 1


class Cache:
    """Sequences over a fake memory, and jobs that compute all of their tokens at once."""

    def __init__(self, count: int = 4, cells: int = 64, *, is_recurrent: bool = False) -> None:
        self.memory = FakeMemory(is_recurrent=is_recurrent)
        self.sequences = Sequences(self.memory, count, cells, can_share=not is_recurrent)

    def run(self, token_ids: list[int], salt: bytes = b"") -> tuple[int, int]:
        """A whole job. Gives its sequence's number, and how many tokens were known."""
        number, known, release = self.start(token_ids, salt)
        release()
        return number, known

    def start(self, token_ids: list[int], salt: bytes = b"") -> tuple[int, int, Callable[[], None]]:
        sequence = self.sequences.acquire(token_ids, salt=salt)
        assert sequence is not None
        known = len(sequence.token_ids)
        assert sequence.token_ids == token_ids[:known]
        assert self.memory.held.get(sequence.number, []) == sequence.token_ids
        self.memory.held.setdefault(sequence.number, []).extend(token_ids[known:])
        sequence.token_ids += token_ids[known:]
        return sequence.number, known, lambda: self.sequences.release(sequence)


def test_next_turn_of_a_conversation_goes_on_in_its_sequence() -> None:
    cache = Cache()
    number, known = cache.run([1, 2, 3, 4])
    assert known == 0
    assert cache.run([1, 2, 3, 4, 5, 6]) == (number, 4)
    assert cache.memory.copies == 0


def test_last_token_of_a_prompt_is_always_computed() -> None:
    cache = Cache()
    cache.run([1, 2, 3])
    assert cache.run([1, 2, 3])[1] == 2


def test_prefix_is_copied_from_a_sequence_that_is_taken() -> None:
    cache = Cache()
    first, _, _ = cache.start([1, 2, 3, 4])
    second, known, _ = cache.start([1, 2, 3, 9])
    assert second != first
    assert known == 3
    assert cache.memory.copies == 1


def test_long_kept_sequence_is_copied_rather_than_cut_for_a_short_prefix() -> None:
    cache = Cache()
    number, _ = cache.run([1, *range(10, 30)])
    other, known = cache.run([1, 5, 6])
    assert (other, known) == (1, 1) if number == 0 else (0, 1)
    assert cache.run([1, *range(10, 30), 7]) == (number, 21)


@given(
    st.lists(
        st.tuples(
            st.booleans(),
            st.sampled_from([b"a", b"b"]),
            st.lists(st.integers(0, 1), min_size=1, max_size=12),
        )
    )
)
def test_no_job_finds_what_one_with_another_salt_has_computed(
    moves: list[tuple[bool, bytes, list[int]]],
) -> None:
    cache = Cache(count=3, cells=16)
    running: list[Callable[[], None]] = []
    asked: dict[bytes, list[list[int]]] = {b"a": [], b"b": []}
    for ends, salt, token_ids in moves:
        if running and (ends or len(running) == 3):
            running.pop(0)()
            continue
        _, known, release = cache.start(token_ids, salt)
        running.append(release)
        own = asked[salt]
        assert known <= max((common_length(each, token_ids) for each in own), default=0)
        own.append(token_ids)


def test_jobs_are_placed_side_by_side() -> None:
    cache = Cache()
    numbers = [cache.start([i, i])[0] for i in range(4)]
    assert sorted(numbers) == [0, 1, 2, 3]
    assert cache.sequences.acquire([9, 9]) is None


def test_gap_between_two_jobs_is_filled() -> None:
    cache = Cache()
    jobs = [cache.start([i, i]) for i in range(3)]
    by_number = {number: release for number, _, release in jobs}
    by_number[1]()
    assert [filler.number for filler in cache.sequences.fillers] == [1]
    by_number[0]()
    assert cache.sequences.fillers == []


def test_full_sequence_keeps_a_cell_for_a_filler() -> None:
    cache = Cache(cells=4)
    number, _ = cache.run([1, 2, 3, 4])
    assert len(cache.memory.held[number]) == 3


def test_recurrent_state_is_used_whole_or_not_at_all() -> None:
    cache = Cache(is_recurrent=True)
    number, _ = cache.run([1, 2, 3])
    assert cache.run([1, 2, 3, 4]) == (number, 3)
    assert cache.run([1, 2, 9])[1] == 0
    assert cache.memory.copies == 0


@given(st.lists(st.tuples(st.booleans(), st.lists(st.integers(0, 1), min_size=1, max_size=12))))
def test_what_is_listed_is_what_the_memory_holds(
    moves: list[tuple[bool, list[int]]],
) -> None:
    cache = Cache(count=3, cells=16)
    running: list[Callable[[], None]] = []
    for ends, token_ids in moves:
        if running and (ends or len(running) == 3):
            running.pop(0)()
        else:
            running.append(cache.start(token_ids)[2])
        for sequence in cache.sequences._all:
            assert cache.memory.held.get(sequence.number, []) == sequence.token_ids
