"""ZeroMQ, and nothing else knows it: moves frames, knows no message.

`link.py` is the supervisor's end (trio), `thread_link.py` the worker's (one plain thread).

Rule 1: one owner task or thread per socket; one DEALER pair per worker, bound by the supervisor.
Rule 2: the descriptor of a socket is edge-triggered: EVENTS is read before every wait and
        after every send, else a wake-up is lost.
Rule 3: LINGER 0, small high-water marks, a bound on message size, ipc only.
Rule 4: a socket is bound for one process, and the kernel says who connects: ZeroMQ itself takes
        whoever comes, and random bytes for a message.
"""
