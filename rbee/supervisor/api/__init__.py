"""The HTTP face: ASGI routes over the small Protocols of `ports.py`."""
