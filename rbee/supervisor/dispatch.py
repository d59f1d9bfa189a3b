"""Who works on what: the requests that wait, those at each worker, and who works apart.

All methods are synchronous. What is decided here is who gets what next; what becomes of a
request (its answer, its errors) is the pool's.

Rule 1: requests wait in two lines. Suspects (`quarantine.py`) are sent to workers that have
        nothing else, and such a worker gets nothing else until its suspects are cleared.
Rule 2: while suspects wait, one worker is kept for them: the first that is idle; if none is and
        no other is coming soon, the one with the fewest requests: it is idle when they end.
Rule 3: where somebody at a worker came to be suspected, by what its like did elsewhere, that
        worker gets nothing else either until it is cleared.
Rule 4: of equal suspects one works apart at a time. The others wait until it is cleared or its
        worker is gone, also when it was cancelled there: what is found of it holds for them.
"""

import itertools
from collections.abc import Callable, Iterable
from typing import Final

from rbee.errors import LinkFullError
from rbee.supervisor.at_workers import AtWorkers
from rbee.supervisor.backlog import Rates, check_queue, estimate_tokens
from rbee.supervisor.lifecycle import TAKES_REQUESTS
from rbee.supervisor.model_slots import ModelSlots
from rbee.supervisor.open_request import OpenRequest
from rbee.supervisor.placement import choose, choose_idle
from rbee.supervisor.quarantine import Quarantine, Standing
from rbee.supervisor.waiting import Waiting
from rbee.supervisor.worker import Worker

# A worker that is being started is idle when it comes: for so long suspects wait for it.
COMING_S_MAX: Final = 10.0


class Dispatch:
    """Places requests on workers.

    Args:
      backlog: how many requests may wait, and how many tokens they may have together.
      drop: ends a request that can no longer be sent: its deadline has passed, or it is in
        quarantine. Called from `pump`.
      waited: hears of each request that is sent for the first time how long it has waited for it.
    """

    def __init__(  # noqa: PLR0913  # what it works with, once each
        self,
        slots: ModelSlots,
        backlog: tuple[int, int],
        quarantine: Quarantine,
        clock: Callable[[], float],
        *,
        drop: Callable[[OpenRequest, Standing], None],
        waited: Callable[[str, float], None],
    ) -> None:
        self._slots = slots
        self.waiting: Final = Waiting(*backlog)
        self._rates = Rates()
        self._quarantine = quarantine
        self._clock = clock
        self._drop = drop
        self._waited = waited
        self._ids = itertools.count(1)
        self._there = AtWorkers()
        self._kept: set[Worker] = set()  # for suspects
        self._pumped: set[str] = set()  # the models of which what waits is being sent
        self._to_pump: set[str] = set()  # and those of which it is to be, once more

    def next_id(self) -> int:
        return next(self._ids)

    # --- what there is

    def sent(self, wire_id: int) -> OpenRequest | None:
        return self._there.get(wire_id)

    def at_workers(self, model: str) -> list[OpenRequest]:
        return self._there.of_model(model)

    def standing(self, request: OpenRequest) -> Standing:
        """What is held against a request. Fingerprints are taken only while something is."""
        now_s = self._clock()
        if self._quarantine.is_empty(now_s):
            return Standing.CLEAR
        return self._quarantine.standing(self.fingerprint(request), now_s)

    def fingerprint(self, request: OpenRequest) -> bytes:
        if request.fingerprint is None:
            request.fingerprint = self._quarantine.fingerprint(request.ask)
        return request.fingerprint

    def suspects_at(self, worker: Worker) -> list[OpenRequest]:
        """Who works apart there."""
        if worker not in self._kept:
            return []
        here = self._there.here(worker)
        return [each for each in here if self.standing(each) is Standing.SUSPECT]

    # --- what comes and goes

    def free(self, requests: list[OpenRequest], *, are_suspects: bool = False) -> int:
        """How many of an order that has come can be sent past the queue, as nobody is in it."""
        model, wanted = requests[0].ask.model, len(requests)
        if self._kept:  # a suspicion may have ended by the clock alone
            self.pump(model)
        if are_suspects:
            if self.waiting.has_suspects(model):
                return 0
            workers = self._slots.workers(model)
            idle = sum(each.takes_requests and not each.open_requests for each in workers)
            return min(idle, len({*map(self.fingerprint, requests)} - self._heard(model)))
        if self.waiting.first(model) is not None:
            return 0
        found = 0
        for worker in self._slots.workers(model):
            if worker.takes_requests and worker not in self._kept:
                found += worker.batch_size - worker.open_requests
                if found >= wanted:
                    return wanted
        return found

    def check_wait(
        self,
        requests: list[OpenRequest],
        remaining_s: float,
        first_token_timeout_s: float,
        *,
        are_suspects: bool,
    ) -> None:
        """Whether new requests of one order may wait, and have the time to.

        Args:
          are_suspects: they wait behind other suspects alone.

        Raises:
          RequestError: QUEUE_FULL.
        """
        model, waiting = requests[0].ask.model, self.waiting
        for request in requests:
            request.tokens = estimate_tokens(request.ask)
        serving = (each for each in self._slots.workers(model) if each.state in TAKES_REQUESTS)
        capacity = sum(worker.batch_size for worker in serving)
        place = waiting.place(model, requests[0].priority, is_suspect=are_suspects)
        # For what an order has in the queue alone it would wait at any other time, too.
        behind = len(requests) - 1 if waiting.has_any(model) else 0
        check_queue(
            self._rates.wait_s(model, place, capacity),
            self._rates.wait_s(model, place + behind, capacity),
            has_room=waiting.has_room(requests),
            remaining_s=remaining_s,
            first_token_timeout_s=first_token_timeout_s,
        )

    def send_now(self, request: OpenRequest) -> bool:
        """Send a new request past the queue, where nobody is in it and a worker has room."""
        return self.waiting.first(request.ask.model) is None and self._place(request)

    def wait(self, request: OpenRequest, standing: Standing) -> None:
        request.waits_since_s = self._clock()
        self.waiting.add(request, is_suspect=standing is Standing.SUSPECT)

    def wait_first(self, request: OpenRequest) -> None:
        """Put one at the head of its line that had its turn."""
        request.waits_since_s = self._clock()
        self.waiting.add_first(request, is_suspect=self.standing(request) is Standing.SUSPECT)

    def finish(self, request: OpenRequest) -> None:
        """The worker has said its last word on it."""
        self._there.take_off(request)
        self._note_held(request)

    def remove(self, request: OpenRequest) -> None:
        """Take a request out, wherever it is: its worker is told to stop."""
        if request.worker is None:
            self.waiting.remove(request)
        else:
            self._there.cancel(request)
        if self._kept:  # it may be what a worker was kept for
            self.pump(request.ask.model)

    def withdraw(self, request: OpenRequest) -> None:
        """Take a request away from its worker, to go on later."""
        self._there.cancel(request)
        self.wait_first(request)

    def let_go(self, worker: Worker) -> None:
        """The worker may have said its last word on something that was cancelled."""
        for request in self._there.let_go(worker):
            if request.worker is None and request not in self.waiting:  # it is over
                self._note_held(request)

    def take_back(self, worker: Worker) -> tuple[list[OpenRequest], list[OpenRequest]]:
        """The worker is gone.

        Returns:
          The requests that were at it, oldest sending first; and those that had been cancelled,
          of which it had not said its last word.
        """
        self._kept.discard(worker)
        return self._there.take_back(worker)

    def keep_suspected(self, model: str) -> None:
        """Something crashed: whoever is suspected of it where it works gets no new neighbours."""
        self._kept.update(each for each in self._slots.workers(model) if self._has_suspect(each))

    def sort(self, model: str) -> None:
        """Suspects were cleared: those that wait apart go to the head of the common line."""
        suspects = sorted(self.waiting.suspects(model), key=lambda each: -each.request_id)
        for request in suspects:
            if self.standing(request) is Standing.CLEAR:
                self.waiting.clear(request)

    # --- who gets what next

    def pump(self, model: str) -> None:
        """Send what waits, as long as there is room.

        Who is dropped on the way may take others out, and so call for it once more: it then goes
        round again. It never stands in itself, however many are dropped.
        """
        self._to_pump.add(model)
        if model in self._pumped:
            return
        self._pumped.add(model)
        try:
            while model in self._to_pump:
                self._to_pump.discard(model)
                self._pump(model)
        finally:
            self._pumped.discard(model)

    def _pump(self, model: str) -> None:
        if self._kept or self.waiting.has_suspects(model):
            self._pump_apart(model)
        while (request := self._next(model)) is not None:
            standing = self.standing(request)
            if standing is Standing.SUSPECT:
                self.waiting.remove(request)
                self.wait(request, standing)
                self._pump_apart(model)
                continue
            if not self._place(request):
                return

    def _pump_apart(self, model: str) -> None:
        """Give each idle worker its suspect, or some, and keep one for those that still wait."""
        workers = self._slots.workers(model)
        while (request := self._next_apart(model)) is not None:
            worker = choose_idle(workers)
            if worker is None or not self._send_apart(request, worker):
                break
            self._kept.add(worker)
        mine = [worker for worker in workers if worker in self._kept]
        if request is None:
            self._kept.difference_update(each for each in mine if not self._has_suspect(each))
        elif not mine and not self._is_coming(request):
            loaded = (worker for worker in workers if worker.state in TAKES_REQUESTS)
            fewest = min(loaded, key=lambda worker: worker.open_requests, default=None)
            if fewest is not None:
                self._kept.add(fewest)

    def _send_apart(self, request: OpenRequest, worker: Worker) -> bool:
        """Send a suspect to an idle worker, and with it those that are to be heard together."""
        if not self._send(request, worker):
            return False
        heard_with = self._quarantine.heard_with(self.fingerprint(request))
        others = self.waiting.suspects(request.ask.model) if heard_with[1] > 1 else ()
        for other in others:
            if worker.open_requests >= heard_with[1] or not worker.takes_requests:
                break
            is_meant = self._quarantine.heard_with(self.fingerprint(other)) == heard_with
            if is_meant and self.standing(other) is Standing.SUSPECT:
                self._send(other, worker)
        return True

    def _has_suspect(self, worker: Worker) -> bool:
        """Whether a suspect is in work there, even if it was cancelled."""
        in_work = self._there.in_work(worker)
        return any(self.standing(each) is Standing.SUSPECT for each in in_work)

    def _heard(self, model: str) -> set[bytes]:
        """The fingerprints of those that work apart, even if they were cancelled there."""
        heard: set[bytes] = set()
        for worker in self._kept.intersection(self._slots.workers(model)):
            in_work = list(self._there.in_work(worker))
            if all(self.standing(each) is Standing.SUSPECT for each in in_work):
                heard.update(map(self.fingerprint, in_work))
        return heard

    def _next(self, model: str) -> OpenRequest | None:
        """The first in the common line that may be sent."""
        while (request := self.waiting.first(model)) is not None:
            if not self._dropped(request):
                return request
        return None

    def _next_apart(self, model: str) -> OpenRequest | None:
        """The first of the suspects that may be sent: rule 4."""
        heard = self._heard(model)
        for request in self.waiting.suspects(model):
            if self.fingerprint(request) in heard:
                continue
            # Some may have gone with one that was dropped.
            if request in self.waiting and not self._dropped(request):
                return request
        return None

    def _dropped(self, request: OpenRequest) -> bool:
        """Whether one whose turn it is can no longer be sent: then it is dropped."""
        standing = self.standing(request)
        if request.deadline_s > self._clock() and standing is not Standing.QUARANTINED:
            return False
        self.waiting.remove(request)
        self._drop(request, standing)
        return True

    def _place(self, request: OpenRequest) -> bool:
        """Send a request to the worker that has the fewest, of those whose links take it."""
        passed_over = self._kept
        while True:
            workers: Iterable[Worker] = self._slots.workers(request.ask.model)
            if passed_over:
                workers = (worker for worker in workers if worker not in passed_over)
            worker = choose(workers)
            if worker is None:
                return False
            if self._send(request, worker):
                return True
            passed_over = passed_over | {worker}  # its process may have ended just now

    def _send(self, request: OpenRequest, worker: Worker) -> bool:
        """False: its link takes nothing now."""
        now_s, is_first = self._clock(), not request.wire_id
        wire_id = request.request_id if is_first else self.next_id()
        resume_ids = request.course.send()
        remaining_s = request.deadline_s - now_s
        try:
            worker.generate(
                wire_id, request.ask, remaining_s, request.correlation_id, resume_ids,
                request.cache_salt,
            )  # fmt: skip
        except LinkFullError:
            return False
        self.waiting.remove(request, is_served=True)
        if is_first:
            self._waited(request.ask.model, now_s - request.admitted_s)
        request.sent_s = now_s
        self._there.add(request, worker, wire_id)
        return True

    def _note_held(self, request: OpenRequest) -> None:
        """It held a place until now, at a worker that lives. An answer that went on held two."""
        if not request.course.failovers:
            self._rates.note(request.ask.model, self._clock() - request.sent_s)

    def _is_coming(self, request: OpenRequest) -> bool:
        """Whether a slot is being filled, for which a suspect may yet wait."""
        has_time = self._clock() - request.waits_since_s < COMING_S_MAX
        return has_time and self._slots.is_being_filled(request.ask.model)
