"""Write http-api.md, the reference of the HTTP API, from the same operations as /openapi.json.

`tests/docs/test_reference.py` fails where the page is not what this would write.
"""

import json
import sys
from pathlib import Path

PAGE = Path(__file__).with_name("http-api.md")
INTRO = """# The HTTP API

*This page is made from the operations by `docs/reference/make_http.py`; `/openapi.json` of a server has the
same with all types.*

Bodies are JSON. A run's id in a path is percent-encoded, its slashes too. `Authorization: Bearer TOKEN` says who
calls (see [Serve runs over HTTP](../how-to/serve.md)). Every error is `{"code", "message"}` and what belongs to it
(`missed`, `recorded`, `position`, `reason`, `owner`, `retry_after`); the codes are those of
[Errors](errors.md), and these of the server itself:

| status | code | when |
|---|---|---|
| 403 | `origin_not_allowed` | a page of another site sent it |
| 404 | `not_found` | there is no such path |
| 405 | `method_not_allowed` | there is, but not with this method |
| 413 | `body_too_large` | the body, or a payload in it, is over the limit |
| 415 | `media_type` | the body is not `application/json` |
| 421 | `host_not_allowed` | called by a name that is not this server's |
| 429 | `too_many_requests` | wait for `Retry-After` seconds |
| 401 | `signature` | a webhook: not signed as it must be |
| 408 | `request_timeout` | a webhook: the body did not come in time |
| 502, 504 | `no_response` | a webhook: the run has ended without an answer, or has not answered yet |
| 503 | `secret_missing`, `closing` | a webhook: send it again |
| 500 | `internal` | a defect; the server's log has it |
"""

STORE = """## The contract of the store

What `holdfast.connect("http://…")` uses; one for each method of `Store`.
"""


def page() -> str:
    """The whole page."""
    from holdfast.server.api.openapi import document

    told = json.loads(document())
    parts = [INTRO]
    work = False
    for path, methods in told["paths"].items():
        if path.startswith("/v1/store/") and not work:
            work = True
            parts.append(
                '## The contract of the store\n\nWhat `holdfast.connect("http://…")` uses; one for each '
                "method of `Store`.\n"
            )
        for method, said in methods.items():
            parts.append(_operation(method, path, said, "###" if work else "##"))
    return "\n".join(parts)


def _operation(method: str, path: str, said: dict, level: str) -> str:
    lines = [
        f"{level} {method.upper()} {path}",
        "",
        f"{said['summary']}. {said['description']}".replace("*", "\\*"),
        "",
    ]
    query = [p["name"] for p in said["parameters"] if p["in"] == "query"]
    headers = [p["name"] for p in said["parameters"] if p["in"] == "header"]
    if query:
        lines.append(f"- query: {', '.join(f'`{name}`' for name in query)}")
    if headers:
        lines.append(f"- header: {', '.join(f'`{name}`' for name in headers)}")
    if "requestBody" in said:
        lines.append(f"- body: {_type(said['requestBody']['content'])}")
    for status, response in said["responses"].items():
        if status < "400":
            lines.append(f"- {status}: {_type(response.get('content', {})) or response['description']}")
    special = [
        f"{status} {response['description']}"
        for status, response in said["responses"].items()
        if status >= "400" and "`" in response["description"] and status != "400"
    ]
    if special:
        lines.append(f"- refused: {'; '.join(special)}")
    return "\n".join(lines) + "\n"


def _type(content: dict) -> str:
    names = []
    for media, kind in content.items():
        name = kind["schema"].get("$ref", "").rpartition("/")[2]
        names.append(f"`{name}`" if name else f"`{media}`")
    return ", ".join(dict.fromkeys(names))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stderr.write(f"wrote {PAGE}\n")
