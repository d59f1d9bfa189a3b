"""The worker process: one engine, one model, one link to the supervisor."""
