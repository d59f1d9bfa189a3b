"""The supervisor: opens in order what it needs from outside, and nests what runs.

The nesting of nurseries is the order of shutdown, innermost first:

    ground    audit log, run directory, instance, links, the signal watcher, the warden
      workers   one `keep_filled` per slot
        faces     HTTP, local
"""

import contextlib
import functools
import os
import socket
from dataclasses import asdict
from typing import Final

import trio

from rbee import __version__
from rbee.audit import open_audit, place_in
from rbee.config import Config, ServerConfig
from rbee.errors import ErrorCode, ExitCode, RequestError, SystemRefusedError
from rbee.hardening import forbid_core_files, forbid_looking_inside
from rbee.logs import Log, open_log
from rbee.supervisor.access.tending import open_gate
from rbee.supervisor.adopted import keep_reaping
from rbee.supervisor.api.app import make_face
from rbee.supervisor.audited import Presence
from rbee.supervisor.bind import Bind, check_bind
from rbee.supervisor.cgroup import own_places
from rbee.supervisor.devices import survey_gpus
from rbee.supervisor.gpu_gate import GpuGate
from rbee.supervisor.house import House, Outside, build, state_dir_of
from rbee.supervisor.http_server import HttpLimits, bind_sockets, serve_http
from rbee.supervisor.instance import Instance, keep_run_dir
from rbee.supervisor.lane import Lane
from rbee.supervisor.last_shutdown import leave
from rbee.supervisor.local import LocalSocket, serve_local
from rbee.supervisor.preparation import calm_collector, prepare, return_large_memory
from rbee.supervisor.refusal import find_refusal
from rbee.supervisor.reload import Part, Reloader
from rbee.supervisor.run_dir import RunDir
from rbee.supervisor.signals import watch_hang_ups, watch_signals
from rbee.supervisor.slot import Slot, keep_filled
from rbee.supervisor.start import Start
from rbee.supervisor.warden_child import keep_warden
from rbee.transport.link import LinkFactory

# How often the drain looks whether the last request has ended, and the announcement whether
# the first worker is ready. Both happen once in a server's life.
LOOK_EVERY_S: Final = 0.05

# What finished answers may still take to leave, once draining is over.
FACES_CLOSE_S: Final = 6.0

# The same after a second signal: who has just asked is still told that the server goes.
HURRIED_CLOSE_S: Final = 0.5

# What shutdown may take beside draining, the faces' closing and the ladder. With the defaults that
# is less than 30 s in all, though nothing ends as it should.
OVERDUE_S: Final = 1.9


def serve(config: Config, start: Start) -> int:
    """Run the supervisor until a signal ends it.

    All that `rbee.signal_mask` names wait since ``start``, and do so when this returns: then
    nothing is left to be hurried.

    Returns:
      The exit code: 0 after a clean shutdown, UNAVAILABLE where no slot could serve any more,
      OS_ERROR where a process stays that SIGKILL does not end.

    Raises:
      RbeeError: it cannot start: configuration, address or run directory; or cannot go on.
    """
    log = open_log(config.log)
    _harden(config.server, log)
    shutdown_s_max = config.server.drain_s + FACES_CLOSE_S + config.worker.kill_after_s + OVERDUE_S
    start.overdue.change(shutdown_s_max, functools.partial(_tell_overdue, log))
    with (
        contextlib.nullcontext(prepare(config, log)) as ready,
        open_audit(config.audit, place_in(state_dir_of(config)), log) as opened,
        RunDir(ready.run_dir) as run_dir,
        Instance(
            run_dir.path, own_places(), ready.held, log, ready.gpus, mend_run_dir=run_dir.mend
        ) as instance,
        open_gate(config.access, config.jwt, state_dir_of(config), log, opened) as gate,
        LocalSocket(run_dir.path) if config.server.local else contextlib.nullcontext() as local,
    ):
        check_bind(
            ready.bind,
            has_credentials=gate.has_credentials,
            has_tls=ready.tls is not None,
            allow_plaintext=config.server.allow_plaintext,
        )
        sockets = bind_sockets(ready.bind.host, ready.bind.port, ready.limits.backlog)
        links = LinkFactory(run_dir.path)
        presence = Presence(opened.audit)
        presence.config_loaded(config)
        code = ExitCode.SOFTWARE
        try:
            address = Bind(ready.bind.host, _port(sockets), is_tls=ready.tls is not None)
            gpu_gate = GpuGate(
                ready.places, ready.survey, survey_gpus, config.gpu, log,
                quarantine=instance.gpu_problem,
            )  # fmt: skip
            outside = Outside(
                links, instance, address, opened, presence, start, ready.tls, gate, gpu_gate, local
            )  # fmt: skip
            house = build(config, ready.plans, ready.user, outside, log)
            calm_collector()
            return_large_memory()
            trio.run(_run, house, sockets, ready.limits)
            code = ExitCode.UNAVAILABLE if house.ending.hopeless.is_set() else ExitCode.OK
        except Exception as bug:
            if (refusal := find_refusal(bug)) is not None:
                code = ExitCode.OS_ERROR
                message = f"the supervisor cannot go on, as the system refuses: {refusal}"
                raise SystemRefusedError(message) from bug
            log.error("supervisor_failed", exc_info=bug)  # noqa: TRY400  # any logger, not logging's
        finally:
            links.close()
            for each in sockets:
                each.close()
            if not instance.close() and code is ExitCode.OK:
                code = ExitCode.OS_ERROR
            presence.stopped(code)
    if code is not ExitCode.SOFTWARE:
        log.info("supervisor_stopped", pid=os.getpid(), exit_code=int(code))
    return code


def _tell_overdue(log: Log, limit_s: float) -> None:
    log.error(
        "shutdown_overdue", limit_s=limit_s, exit_code=int(ExitCode.SOFTWARE),
        remedy="what is left of the workers is ended by their life pipes and the warden",
    )  # fmt: skip


def _harden(config: ServerConfig, log: Log) -> None:
    """Before anything secret is read."""
    if problem := forbid_core_files():
        log.warning("core_files", problem=problem)
    if config.dumpable:
        log.warning("dumpable", effect="this user's other processes can read keys and prompts")
    elif problem := forbid_looking_inside():
        log.warning("dumpable", problem=problem)


async def _run(house: House, sockets: list[socket.socket], limits: HttpLimits) -> None:
    async with trio.open_nursery() as ground:
        reloader = Reloader(_reloadable(house), house.outside.presence, house.log)
        await ground.start(watch_signals, house.ending)
        await ground.start(watch_hang_ups, house.ending, house.outside.start.terminal, reloader.ask)
        ground.start_soon(reloader.keep_reloading)
        if house.outside.tls is not None:
            ground.start_soon(house.outside.tls.watch)
        await ground.start(keep_warden, house.outside.instance, house.log)
        ground.start_soon(keep_reaping, house.outside.instance.adopted, house.log)
        ground.start_soon(keep_run_dir, house.outside.instance, house.log)
        house.log.info(
            "supervisor_started", pid=os.getpid(), version=__version__, url=house.outside.bind.url
        )
        house.outside.presence.started(house.outside.bind.url)
        ground.start_soon(house.outside.gpus.watch)
        ground.start_soon(house.disks.watch)
        ground.start_soon(_announce, house)
        await _run_workers(house, sockets, limits)
        shutdown = house.stopwatch.stopped()
        house.log.info("shutdown_done", **asdict(shutdown))
        await leave(shutdown, state_dir_of(house.config), house.log)
        ground.cancel_scope.cancel(reason="all workers are gone")


def _reloadable(house: House) -> list[Part]:
    """What SIGHUP reads again."""
    jwts = house.outside.gate.jwts
    parts = (
        house.outside.tls, None if jwts is None else jwts.issuer_keys, house.outside.opened.secret
    )  # fmt: skip
    return [part for part in parts if part is not None]


async def _announce(house: House) -> None:
    """Say once where the server is and what it serves, when it can be used; if it ever can."""
    while (readiness := house.operations.readiness()) == "starting":  # noqa: ASYNC110  # once
        await trio.sleep(LOOK_EVERY_S)
    if readiness == "draining":  # it ends before it was used, as somebody has asked
        return
    for model in house.operations.models():
        tell = house.log.info if model.is_ready else house.log.error
        tell(
            "serving" if model.is_ready else "not_serving",
            url=house.outside.bind.url, model=model.name, engine=model.engine,
        )  # fmt: skip


async def _run_workers(house: House, sockets: list[socket.socket], limits: HttpLimits) -> None:
    stopped: list[str] = []
    async with trio.open_nursery() as workers:
        for slot in house.slots:
            workers.start_soon(_keep, slot, house, stopped)
        await _serve_faces(house, sockets, limits)
        house.stopwatch.closed()
        workers.cancel_scope.cancel(reason="shutdown")


async def _keep(slot: Slot, house: House, stopped: list[str]) -> None:
    try:
        await keep_filled(slot, house.surroundings)
    finally:
        stopped.append(slot.slot_id)
        total = len(house.slots)
        house.log.info("slot_closed", slot=slot.slot_id, closed=f"{len(stopped)}/{total}")


async def _serve_faces(house: House, sockets: list[socket.socket], limits: HttpLimits) -> None:
    """Serve until a signal has come and what is open was answered, or had its time."""
    closing = trio.Event()
    gate = house.outside.gate
    revocations = None if gate.jwts is None else gate.jwts.revocations
    api = make_face(
        house.pool, house.operations, house.config.server, house.log,
        audit=house.outside.opened.audit, access=gate.access, keys=gate.keeper,
        revocations=revocations, metrics=house.metrics,
    )  # fmt: skip
    settings = house.config.server
    tls = house.outside.tls
    lane = Lane(api, settings, limits, house.log, closing, tls, house.ending.drain_asked)
    run_http = functools.partial(
        serve_http, api.app, sockets, limits, log=house.log, shutdown=closing,
        draining=house.ending.drain_asked, front=lane if settings.lane else None, tls=tls,
    )  # fmt: skip
    async with trio.open_nursery() as gatehouse:
        end_lapsed = functools.partial(api.open_requests.end_those_of, gate.access.lapsed)
        gatehouse.start_soon(gate.tend, end_lapsed)
        async with trio.open_nursery() as faces:
            await faces.start(run_http)
            if (local := house.outside.local) is not None:
                run_local = functools.partial(serve_local, log=house.log, shutdown=closing)
                await faces.start(run_local, api.app, local, settings, limits)
            await house.ending.drain_asked.wait()
            house.pool.drain()
            house.stopwatch.begun()
            await _wait_drained(house)
            house.stopwatch.drained(house.pool.open_requests)
            message = "the server is shutting down"
            house.pool.fail_all(RequestError(ErrorCode.DRAINING, message, retry_after_s=5.0))
            closing.set()
            faces.cancel_scope.deadline = trio.current_time() + FACES_CLOSE_S
            gatehouse.start_soon(_hurry, faces.cancel_scope, house.ending.hurry)
        gatehouse.cancel_scope.cancel(reason="the faces are closed")


async def _hurry(closing: trio.CancelScope, hurry: trio.Event) -> None:
    """From the second signal on, whenever it comes, closing takes but a moment."""
    await hurry.wait()
    closing.deadline = min(closing.deadline, trio.current_time() + HURRIED_CLOSE_S)


async def _wait_drained(house: House) -> None:
    with trio.move_on_after(house.config.server.drain_s):
        while house.pool.open_requests and not house.ending.hurry.is_set():  # noqa: ASYNC110
            await trio.sleep(LOOK_EVERY_S)
    if house.pool.open_requests:
        house.log.warning("drain_incomplete", open_requests=house.pool.open_requests)


def _port(sockets: list[socket.socket]) -> int:
    return int(sockets[0].getsockname()[1])
