"""The supervisor: one trio process that keeps workers alive and serves them."""
