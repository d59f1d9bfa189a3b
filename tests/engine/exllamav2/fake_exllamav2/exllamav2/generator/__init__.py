"""The batching generator without a model's mathematics: jobs, pages, results, quirks."""

# In the manner of what it stands for, which has no types.
# mypy: ignore-errors
# ruff: noqa: ANN001, ANN003, ANN201, ANN202, ANN204, RUF013

import hashlib
import random
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from exllamav2.generator.sampler import ExLlamaV2Sampler

PAGED_PAGE_SIZE = 256

__all__ = ["ExLlamaV2DynamicGenerator", "ExLlamaV2DynamicJob", "ExLlamaV2Sampler"]


def _tensor_hash_checksum(page_ids, prev_hash):
    """The name under which the real one looks it up, at each page."""
    hasher = hashlib.blake2b(prev_hash or b"", digest_size=16)
    hasher.update(repr(page_ids).encode())
    return hasher.digest()


class ExLlamaV2DynamicGenerator:
    def __init__(
        self,
        model,
        cache,
        tokenizer,
        max_batch_size: int = None,
        max_seq_len: int | None = None,
        max_chunk_size: int | None = None,
        max_q_size: int = 8,
        draft_model=None,
        draft_cache=None,
        num_draft_tokens: int = 4,
        use_ngram_draft: bool = False,
        max_ngram: int = 4,
        max_sampling_threads: int = 16,
        min_sampling_threads: int = 3,
        paged: bool = True,
        filter_background_eval: bool = True,
        **kwargs,
    ):
        cfg = model.config
        assert max_q_size * max_batch_size <= cfg.max_batch_size * cfg.max_input_len
        assert cache.batch_size == 1
        assert cache.max_seq_len % PAGED_PAGE_SIZE == 0
        assert max_chunk_size <= cfg.max_input_len
        assert max_chunk_size % PAGED_PAGE_SIZE == 0
        self.model, self.cache, self.tokenizer = model, cache, tokenizer
        self.max_batch_size, self.max_chunk_size = max_batch_size, max_chunk_size
        self.max_pages = cache.max_seq_len // PAGED_PAGE_SIZE
        self.padded_vocab_size = ((cfg.vocab_size + 31) // 32) * 32
        self.min_sampling_threads = min_sampling_threads
        self.pending_jobs, self.active_jobs = [], []
        self.job_serial = 0
        self.filter_queue = []
        self.sampling_pool = ThreadPoolExecutor(max_workers=max_sampling_threads)
        self.filter_pool = ThreadPoolExecutor(max_workers=16)
        self.reset_page_table()

    def reset_page_table(self):
        self.free_pages = self.max_pages
        self.page_hashes = set()  # of full pages whose keys and values are in the cache
        self.all_pages = []  # it knows no page that is not full

    def warmup(self):
        raise AssertionError("the adapter warms up with its own prompts")

    def num_remaining_jobs(self):
        return len(self.pending_jobs) + len(self.active_jobs)

    def enqueue(self, job):
        job.prepare_for_queue(self, self.job_serial)
        self.job_serial += 1
        self.pending_jobs.append(job)
        job.time_enqueue = time.time()
        return job.serial_number

    def cancel(self, job):
        if job in self.pending_jobs:
            self.pending_jobs.remove(job)
        elif job in self.active_jobs:
            self.free_pages += job.pages
            self.active_jobs.remove(job)

    def clear_queue(self):
        self.free_pages += sum(job.pages for job in self.active_jobs)
        self.active_jobs.clear()
        self.pending_jobs.clear()

    def iterate(self) -> list[dict]:
        results = []
        self._start_jobs(results)
        for job in self.active_jobs:
            job.prefill(results)
        self._gen(results)
        return results

    def _start_jobs(self, results):
        skipped = []
        for job in self.pending_jobs.copy():
            if len(self.active_jobs) >= self.max_batch_size or job.pages > self.free_pages:
                skipped.append(job)
                continue
            if any(each.skips >= each.max_skips for each in skipped):
                return
            for each in skipped:
                each.skips += 1
            self.pending_jobs.remove(job)
            self.active_jobs.append(job)
            self.free_pages -= job.pages
            results.append(job.result("started", eos=False))

    def _gen(self, results):
        ready = [job for job in self.active_jobs if job.is_prefill_done()]
        if not ready:
            return
        rows = np.stack([self.model.forward_row(job.ids) for job in ready])[:, None, :]
        for each in self.filter_queue:
            each.background_prepare_logit_mask(self.filter_pool)
        self.filter_queue.clear()
        logits = [torch.Tensor(rows[i : i + 1]) for i in range(len(ready))]
        if len(self.active_jobs) >= self.min_sampling_threads:
            futures = deque(
                self.sampling_pool.submit(job.receive_logits, row)
                for job, row in zip(ready, logits, strict=True)
            )
            drawn = [future.result() for future in futures]
        else:
            drawn = [job.receive_logits(row) for job, row in zip(ready, logits, strict=True)]
        for job, (next_token, *_) in zip(ready, drawn, strict=True):
            if job.receive_sample(next_token, results):
                self.free_pages += job.pages
                self.active_jobs.remove(job)


class ExLlamaV2DynamicJob:
    def __init__(
        self,
        input_ids,
        max_new_tokens: int,
        min_new_tokens: int = 0,
        max_skips: int | None = 4,
        gen_settings=None,
        seed: int = None,
        stop_conditions: list | tuple | set = None,
        decode_special_tokens: bool = False,
        return_top_tokens: int = 0,
        return_logits: bool = False,
        return_probs: bool = False,
        filters=None,
        filter_prefer_eos: bool = False,
        token_healing: bool = False,
        identifier: object | None = None,
        banned_strings: list[str] | None = None,
        embeddings=None,
        **kwargs,
    ):
        assert all(ids.device.type == "cpu" for ids in input_ids)
        assert input_ids.shape[0] == 1
        assert input_ids.shape[-1] > 0, "Input IDs cannot be empty."
        self.ids = input_ids[0].tolist()
        self.prompt_tokens = len(self.ids)
        self.kv_position = 0
        self.max_new_tokens, self.new_tokens = max_new_tokens, 0
        self.gen_settings = gen_settings or ExLlamaV2Sampler.Settings()
        self.rng = random.Random() if seed is None else random.Random(seed)
        self.stop_tokens = set(stop_conditions or ())
        assert all(isinstance(each, int) for each in self.stop_tokens)
        self.filters = filters or []
        self.identifier, self.max_skips, self.skips = identifier, max_skips, 0
        self.held, self.sequences, self.cached_pages = [], [], 0

    def prepare_for_queue(self, generator, serial_number: int):
        self.generator, self.serial_number = generator, serial_number
        longest = len(self.ids) + self.max_new_tokens
        self.pages = -(-longest // PAGED_PAGE_SIZE)
        self.page_hashes, previous = [], None
        for end in range(PAGED_PAGE_SIZE, len(self.ids), PAGED_PAGE_SIZE):
            previous = _tensor_hash_checksum(self.ids[end - PAGED_PAGE_SIZE : end], previous)
            self.page_hashes.append(previous)
        assert self.pages <= generator.max_pages, f"Job requires {self.pages} pages"

    def is_prefill_done(self):
        return self.kv_position == len(self.ids) - 1

    def prefill(self, results):
        if self.is_prefill_done():
            return
        last = len(self.ids) - 1
        cached = self.kv_position
        for each in self.page_hashes[cached // PAGED_PAGE_SIZE :]:
            if each not in self.generator.page_hashes:
                break
            self.cached_pages += 1
            cached += PAGED_PAGE_SIZE
        size = self.generator.max_chunk_size
        end = min((cached + size) // PAGED_PAGE_SIZE * PAGED_PAGE_SIZE, last)
        pages = self.page_hashes[cached // PAGED_PAGE_SIZE : end // PAGED_PAGE_SIZE]
        self.generator.page_hashes.update(pages)
        self.kv_position = end
        results.append(self.result("prefill", eos=False, curr_progress=end, max_progress=last))

    def receive_logits(self, logits):
        if self.new_tokens == 0:
            for each in self.filters:
                each.background_drop()
                each.begin("")
        return ExLlamaV2Sampler.sample(
            logits, self.gen_settings, torch.tensor([self.ids]), self.rng.random(),
            self.generator.tokenizer, filters=self.filters,
        )  # fmt: skip

    def receive_sample(self, next_token, results):
        token_id = next_token.item()
        for each in self.filters:
            each.feed(next_token)
            self.generator.filter_queue.append(each)
        self.new_tokens += 1
        self.ids.append(token_id)
        self.kv_position += 1
        self.held.append(token_id)
        if token_id in self.stop_tokens:  # what is held stays behind
            end = {"eos_reason": "stop_token", "eos_triggering_token_id": token_id}
            results.append(self.result("streaming", eos=True, **end, held=self._held()))
            return True
        if self.new_tokens >= self.max_new_tokens:
            result = {"eos_reason": "max_new_tokens", **self._held()}
            results.append(self.result("streaming", eos=True, **result))
            return True
        # Half a character is held back; so are up to four broken ones.
        is_held = 1 <= self.generator.tokenizer.decode(self.held).count("�") < 5
        more = {} if is_held else self._held()
        results.append(self.result("streaming", eos=False, **more))
        return False

    def _held(self):
        ids, self.held = self.held, []
        return {"token_ids": torch.tensor([ids]), "text": self.generator.tokenizer.decode(ids)}

    def result(self, stage, **more):
        told = {"job": self, "stage": stage, "serial": self.serial_number, **more}
        return told if self.identifier is None else {**told, "identifier": self.identifier}
