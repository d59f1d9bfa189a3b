"""The document as a page for people: one file of HTML, with nothing to load and no script."""

import base64
import functools
import hashlib
import html
import json
from typing import Any, Final

from rbee.supervisor.api.openapi.document import make_document

_STYLE: Final = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; background: #fff }
h2 { margin-top: 2.5rem; text-transform: capitalize }
summary { cursor: pointer; padding: .4rem 0 }
code, pre { font: 13px/1.45 ui-monospace, monospace }
pre { background: #f4f4f0; padding: .8rem; overflow-x: auto; border-radius: .4rem }
.method { display: inline-block; min-width: 4.2rem; font-weight: 700 }
table { border-collapse: collapse; margin: .5rem 0 1rem }
td, th { border-bottom: 1px solid #ddd; padding: .25rem .8rem .25rem 0; text-align: left;
  vertical-align: top }
@media (prefers-color-scheme: dark) {
  body { color: #ddd; background: #181818 } pre { background: #242424 }
  td, th { border-color: #444 } a { color: #8bf }
}
"""

_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

# Nothing may be loaded, run, framed or sent, whatever should ever stand in the page.
PAGE_POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'"
)


@functools.cache
def page_html() -> bytes:
    """The page, as it is served."""
    document = make_document()
    title = html.escape(f"{document['info']['title']} {document['info']['version']}")
    groups: dict[str, list[str]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            groups.setdefault(operation["tags"][0], []).append(_operation(method, path, operation))
    sections = [f"<h2>{html.escape(name)}</h2>{''.join(of)}" for name, of in groups.items()]
    types = [
        f'<details id="{html.escape(name)}"><summary><code>{html.escape(name)}</code></summary>'
        f"{_json(schema)}</details>"
        for name, schema in document["components"]["schemas"].items()
    ]
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
        f'<h1>{title}</h1><p>The same for programs: <a href="/openapi.json">/openapi.json</a>'
        f" (OpenAPI {html.escape(document['openapi'])}).</p>{''.join(sections)}"
        f"<h2>Types</h2>{''.join(types)}</html>\n"
    ).encode()


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    parameters = [
        (f"{each['name']} ({each['in']})", each["description"])
        for each in operation["parameters"]
        if "$ref" not in each
    ]
    answers = [(status, each["description"]) for status, each in operation["responses"].items()]
    body = operation.get("requestBody")
    schema = _json(body["content"]["application/json"]["schema"]) if body else ""
    return (
        f'<details><summary><span class="method">{method.upper()}</span>'
        f" <code>{html.escape(path)}</code> {html.escape(operation['summary'])}</summary>"
        f"<p>{html.escape(operation['description'])}</p>"
        f"{_table('parameter', parameters)}{schema}{_table('status', answers)}</details>"
    )


def _table(first: str, rows: list[tuple[str, str]]) -> str:
    cells = "".join(
        f"<tr><td><code>{html.escape(name)}</code><td>{html.escape(text)}" for name, text in rows
    )
    return f"<table><tr><th>{first}<th>meaning{cells}</table>" if rows else ""


def _json(schema: object) -> str:
    return f"<pre>{html.escape(json.dumps(schema, indent=2), quote=False)}</pre>"
