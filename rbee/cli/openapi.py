"""``rbee openapi``."""

from rbee.cli.terminal import put


def openapi() -> int:
    """Print the description of the HTTP API: an OpenAPI 3.1 document, as /openapi.json has it."""
    from rbee.supervisor.api.openapi import document_json

    put(document_json().decode())
    return 0
