"""``/openapi.json`` and ``/docs``: what the API is, for programs and for people."""

from starlette.requests import Request
from starlette.routing import Route

from rbee.supervisor.api.answers import JSON_TYPE, Answer
from rbee.supervisor.api.openapi import PAGE_POLICY, document_json, page_html
from rbee.supervisor.api.routing import route


def description_routes() -> list[Route]:
    return [route("/openapi.json", get=_show_document), route("/docs", get=_show_page)]


async def _show_document(_request: Request) -> Answer:
    return Answer(200, [JSON_TYPE], document_json())


async def _show_page(_request: Request) -> Answer:
    html = (b"content-type", b"text/html; charset=utf-8")
    policy = (b"content-security-policy", PAGE_POLICY.encode())
    return Answer(200, [html, policy], page_html())
