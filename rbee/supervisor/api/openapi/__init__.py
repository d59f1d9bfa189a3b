"""The API's description: an OpenAPI 3.1 document, made from what the code is held to.

Rule 1: `operations` has one entry for each method of each route; a test compares them.
Rule 2: limits are not written down again: bodies come from the fields that check them, answers
        from types that real answers are tested against, statuses from the table of errors.
"""

from rbee.supervisor.api.openapi.document import document_json
from rbee.supervisor.api.openapi.page import PAGE_POLICY, page_html

__all__ = ["PAGE_POLICY", "document_json", "page_html"]
