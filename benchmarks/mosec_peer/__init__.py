"""A peer to measure against: the same counting workers behind mosec, a server in Rust.

mosec gives a worker one batch after another: who comes while a batch runs waits for its end.
So all streams of a worker begin together, when its batch is full or `max_wait_time` is over.
"""
