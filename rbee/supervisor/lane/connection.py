"""One connection of the lane: a socket, its `Machine`, and the request that it answers now.

Rule 1: nothing here waits. The loop says what the socket is ready for and when time is up; the
        pool says, through the running `Generation`, what there is to tell.
Rule 2: no further request is read before an answer has left for the kernel; of a stream, only
        so much may be waiting to.
Rule 3: what is answered from the supervisor's own state is answered at once. What asks for tokens
        costs ten times as much, so it waits until all that has come in was looked at.
"""

import socket
from typing import Final

import trio

from rbee.supervisor.access.verifier import VERIFICATION_TIMEOUT_S
from rbee.supervisor.api.generation import Generation
from rbee.supervisor.lane.carrier import Carrier
from rbee.supervisor.lane.client_socket import ClientSocket
from rbee.supervisor.lane.head import Head
from rbee.supervisor.lane.held import Held
from rbee.supervisor.lane.machine import HandOver, Machine, Refused, Request
from rbee.supervisor.lane.respondent import Respondent
from rbee.supervisor.lane.state import (
    AT_WORK,
    RECEIVING,
    State,
    closing_due_s,
    receiving_state,
    receiving_timeout_s,
)

# Requests of one client that are answered before the others get their turn.
_REQUESTS_PER_TURN: Final = 16


class Connection(Respondent):
    """A client's connection. The `Reply` of the generation that it answers with.

    Args:
      sock: accepted, not blocking. Closed at the end, or handed over.
    """

    __slots__ = (
        "_carrier", "_has_more", "_held", "_state", "_wait_due_s", "peer", "sock", "tick",
    )  # fmt: skip

    def __init__(
        self,
        carrier: Carrier["Connection"],
        sock: socket.socket,
        peer: tuple[str, int] | None,
    ) -> None:
        shared = carrier.shared
        super().__init__(
            shared,
            Machine(shared.limits, shared.hot.has, shared.body_bytes_max, shared.date),
            ClientSocket(sock, shared.limits.send_deadline_s),
            peer[0] if peer else "",
        )
        self.sock = sock
        self.peer = peer
        self.tick = -1
        self._carrier = carrier
        self._state = State.HEAD
        self._wait_due_s = trio.current_time() + shared.limits.headers_timeout_s
        self._has_more = False  # received, and to be looked at in the next turn
        self._held: Held | None = None

    @property
    def peer_name(self) -> str:
        return f"{self.peer[0]}:{self.peer[1]}" if self.peer else "unix"

    @property
    def _is_closing(self) -> bool:
        return self._carrier.is_closing

    @property
    def wants_to_read(self) -> bool:
        """Not while there is more to do already, but to hear whether a generation's client goes."""
        if self._has_more or self.is_held_back:
            return False
        return not self._client.parked_bytes or self._state is State.ANSWERING

    @property
    def is_held_back(self) -> bool:
        """Whether what the client says is left unread, but for its going, until its answer ends."""
        return self._machine.is_full

    @property
    def wants_to_write(self) -> bool:
        return self._client.parked_bytes > 0

    @property
    def due_s(self) -> float:
        """When to call `expire`. A client that takes what is parked need do nothing else."""
        if not self._client.parked_bytes:
            return self._wait_due_s
        if self._state is State.ANSWERING:
            return min(self._wait_due_s, self._client.due_s)
        return self._client.due_s

    # --- for the loop

    def readable(self) -> None:
        """The client has said something, or hung up."""
        if self._state is State.GONE:
            return
        data = self._client.receive()
        if data == b"":
            self.abort("client_gone")
        elif data is not None and self._state is not State.LEAVING:
            self._machine.receive(data)
            self.proceed()
            if self.is_held_back:
                self._carrier.watch(self)

    def hung_up(self) -> None:
        """The client has ended its side, maybe behind more than is read now."""
        if self.is_held_back:
            self.abort("client_gone")
        else:
            self.readable()

    def writable(self) -> None:
        """The kernel takes more."""
        if self._state is State.GONE or not self._client.parked_bytes:
            return
        self._client.send_on()
        if self._client.is_broken:
            self.abort("client_gone")
        elif self._client.parked_bytes or self._state is State.ANSWERING:
            self._carrier.watch(self)
        elif self._state is State.LEAVING:
            self._depart()
            self._see_off()
            self._carrier.watch(self)
        else:
            self._depart()
            self._rest()
            self.proceed()

    def proceed(self) -> None:
        """Act on what was received, as far as one turn goes."""
        has_more = self._act()
        if has_more:
            self._carrier.call_soon(self)
        if has_more is not self._has_more:
            self._has_more = has_more
            self._carrier.watch(self)

    def _act(self) -> bool:
        """True: one turn was not enough."""
        for _ in range(_REQUESTS_PER_TURN):
            if self._state is State.GONE:
                return False  # seen when its last answer was sent
            if self._client.parked_bytes and self._state is State.IDLE:
                return False  # one answer after the other
            if self._held is not None and self._held.is_known:
                self._resume(self._held)
                continue
            match self._machine.next_event():
                case Request(head, body) if head.method == "GET":
                    self._serve(head, body)
                    continue
                case Request(head, body):
                    self._arrive(head)
                    self._hold(Held(head, body, None))
                case HandOver(received):
                    self._state = State.GONE
                    self._carrier.hand_over(self, received)
                case Refused(status, answer):
                    self._refuse(status, answer)
                case None:
                    self._note_receiving()
            return False
        return True

    def take_turn(self) -> None:
        """All that came before was looked at: answer the request that waits."""
        if self._held is not None and self._held.pending is None:
            self._resume(self._held)
            self.proceed()

    def expire(self) -> None:
        """Its deadline has passed, as far as the loop knows."""
        if self._state in RECEIVING:  # what has come in time counts, however late we look
            if self.wants_to_read:
                self.readable()
            else:
                self.proceed()
        if self._state is State.GONE:
            return
        now_s = trio.current_time()
        if now_s < self.due_s:
            self._carrier.watch(self)
        elif self._client.parked_bytes and now_s >= self._client.due_s:
            self._give_up()
        elif self._state is State.ANSWERING:
            self._check_time()
        elif self._held is not None:
            self._resume(self._held)
        elif self._state is State.BODY:
            self._serve(self._machine.give_up_body(), None)
        else:
            self.close()

    def drain(self) -> None:
        """The server closes: finish what runs, and what comes at once."""
        if self._state in RECEIVING:
            state = self._state if self._state is State.HEAD else receiving_state(self._machine)
            now_s, limits = trio.current_time(), self._shared.limits
            self._wait_due_s = closing_due_s(state, self._wait_due_s, now_s, limits)
            self._carrier.watch(self)

    def abort(self, outcome: str) -> None:
        """End it now, whatever runs: nobody hears what was not sent yet."""
        if self._state is State.GONE:
            return
        if self._state is State.BODY:
            self._note_broken_off(self._machine.give_up_body())
        elif self._held is not None and self._held.pending is None:
            self._note_broken_off(self._held.head)
        elif self._generation is not None:
            self._generation.abandon(outcome)
        if self._visit is not None:
            self._visit.note_outcome(outcome)
        is_incomplete = self._client.parked_bytes or self._state in AT_WORK
        self._state = State.GONE
        self._held = None
        self._carrier.forget(self)
        if is_incomplete:
            self._client.abort()
        else:
            self._client.close()
        self._depart()

    def close(self) -> None:
        if self._state is not State.GONE:
            self._state = State.GONE
            self._carrier.forget(self)
            self._client.close()

    # --- one request

    def _serve(self, head: Head, body: bytes | None) -> None:
        """Answer a request.

        Args:
          body: None: it has not come in time.
        """
        self._arrive(head)
        self._respond(head, body, None)

    def _resume(self, held: Held) -> None:
        """It has its turn; or it is known now who makes it, or will not be found out."""
        self._held = None
        self._respond(held.head, held.body, held.pending)

    def _hold(self, held: Held) -> None:
        """Have a request wait. Nothing else of this client is looked at."""
        self._held = held
        self._state = State.HELD
        self._wait_due_s = trio.current_time() + VERIFICATION_TIMEOUT_S
        if held.pending is None:
            self._carrier.call_in_turn(self)
        else:
            held.pending.verification.call_when_done(self._call_soon_if_held)
        self._carrier.watch(self)

    def _call_soon_if_held(self) -> None:
        if self._held is not None:
            self._carrier.call_soon(self)

    def _run(self, generation: Generation) -> None:
        self._generation = generation
        self._state = State.ANSWERING
        now_s = trio.current_time()
        generation.start(now_s)  # which may have told its end when it returns
        if not generation.is_over:
            self._wait_due_s = generation.next_check_s(now_s)
        self._carrier.watch(self)

    def _check_time(self) -> None:
        """The running generation may be late by now, or may have moved on."""
        generation = self._generation
        assert generation is not None
        now_s = trio.current_time()
        generation.check_time(now_s)
        assert generation.is_over == (self._generation is None), "one that is over has said so"
        if not generation.is_over:
            self._wait_due_s = generation.next_check_s(now_s)
            self._carrier.watch(self)

    def _complete(self) -> None:
        """The answer is complete, as far as we are concerned; it may still be parked."""
        self._generation = None
        if not self._client.parked_bytes:
            self._depart()
        if self._state is State.GONE:
            return
        if not self._machine.can_go_on:
            self._leave()
            return
        if self._state in AT_WORK and self._machine.has_unread:
            self._has_more = True  # nor is more read before
            self._carrier.call_soon(self)
        self._rest()

    def _rest(self) -> None:
        """Nothing is under way: the next request may come."""
        self._state = State.IDLE
        self._wait_due_s = self._due_s_of(State.IDLE)
        self._carrier.watch(self)

    def _note_receiving(self) -> None:
        """Something of a request may have come. It is idle only after an answer: see `_rest`."""
        if self._state not in RECEIVING:
            return
        state = receiving_state(self._machine)
        if state is not self._state and state is not State.IDLE:
            self._state = state
            self._wait_due_s = self._due_s_of(state)
            if state is State.BODY:
                due_s = self._expect_body(self._machine.coming_head)
                self._wait_due_s = min(self._wait_due_s, due_s)
            self._carrier.watch(self)

    def _due_s_of(self, state: State) -> float:
        shared = self._shared
        return trio.current_time() + receiving_timeout_s(
            state, shared.limits, shared.body_timeout_s, is_closing=self._is_closing
        )

    # --- the socket

    def _send(self, data: bytes) -> None:
        if self._state is State.GONE:
            return
        self._client.send(data)
        if self._client.is_broken:
            self.abort("client_gone")
        elif self._client.parked_bytes:
            self._carrier.watch(self)

    def _refuse(self, status: int, answer: bytes) -> None:
        self._shared.log.debug("request_refused", peer=self.peer_name, status=status)
        self._send(answer)
        if self._state is not State.GONE:
            self._leave()

    def _give_up(self) -> None:
        self._shared.log.debug("client_given_up", peer=self.peer_name, reason="slow_client")
        self.abort("slow_client")

    def _leave(self) -> None:
        """Send what is left, then close so that the client can read it, even if it talks on."""
        self._state = State.LEAVING
        if not self._client.parked_bytes:
            self._see_off()
        self._carrier.watch(self)

    def _see_off(self) -> None:
        """Let the client talk to the wall: closing now would reset, and lose our last word."""
        self._wait_due_s = trio.current_time() + self._shared.limits.linger_s
        self._client.end()
        if self._client.is_broken:
            self.close()
