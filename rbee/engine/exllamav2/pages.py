"""Whose pages of the cache are whose: a job finds those that jobs with its own salt have filled.

exllamav2 0.3.2 knows a full page by a hash of its tokens and of the page before it, and a page that
is not full by its tokens and the hash of the page before it. Before the first page it takes none,
for all jobs. Here it takes the job's salt there; all later hashes follow from that.

Rule 1: what is changed of the library for a call is as it was when the call is over. All such calls
        are made by the engine's one thread; the threads that sample never come to a hash.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rbee.engine.exllamav2.foreign import Foreign


def own_pages(job: Foreign, salt: bytes, module: Foreign) -> None:
    """Let a job share pages with those that have the same salt, and with no others.

    Args:
      job: an ExLlamaV2DynamicJob that no generator has seen yet.
      salt: b"": its pages are for all jobs that have none.
      module: the one in which the job's methods look up how a page is hashed.
    """
    if not salt:
        return
    job.prepare_for_queue = _hashing(job.prepare_for_queue, salt, module)
    job.receive_sample = _hashing(job.receive_sample, salt, module)
    read_prompt = job.prefill

    def prefill(results: Foreign) -> None:
        if job.is_prefill_done():
            read_prompt(results)
            return
        with _first_pages(job, salt):
            read_prompt(results)

    job.prefill = prefill


def _hashing(call: Callable[..., Foreign], salt: bytes, module: Foreign) -> Callable[..., Foreign]:
    """``call``, with the salt in the place of the hash that the first page lacks."""

    def salted_call(*arguments: Foreign, **named: Foreign) -> Foreign:
        plain = module._tensor_hash_checksum

        def salted(page_ids: Foreign, previous: bytes | None) -> Foreign:
            return plain(page_ids, salt if previous is None else previous)

        module._tensor_hash_checksum = salted
        try:
            return call(*arguments, **named)
        finally:
            module._tensor_hash_checksum = plain

    return salted_call


@contextmanager
def _first_pages(job: Foreign, salt: bytes) -> Iterator[None]:
    """While it reads its prompt, a job sees no first pages but those of its salt.

    It looks for the beginning of a page among all that follow the same page, and for that of a
    first page among those that follow none. So these are marked by their salt, and bear the mark
    of none only while a job of that salt looks. A page with neither is nobody's.
    """
    generator = job.generator
    pages = generator.all_pages
    known = [page for page in pages if page.prev_hash is not None]
    ours = [page for page in known if page.prev_hash == salt]
    generator.all_pages = known
    for page in ours:
        page.prev_hash = None
    try:
        yield
    finally:
        generator.all_pages = pages
        ours += [sequence.allocated_pages[0] for sequence in job.sequences]
        for page in ours:
            page.prev_hash = salt
