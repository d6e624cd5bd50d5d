"""The description of a route table in OpenAPI 3.1.

Source: OpenAPI 3.1.1 §4.8; JSON Schema 2020-12. Extensions: `x-permission`,
`x-permission-own` (enough for one's own things) and `x-audit`.
"""

from typing import Any

import msgspec

from border0.control.api.errors import ErrorAnswer
from border0.control.api.principals import PUBLIC
from border0.control.api.routes import TEXT, Route, Table
from border0.control.api.schema import UUID_PATTERN


def describe(table: Table, title: str, version: str) -> dict[str, Any]:
    """The whole document, ready for JSON."""
    kinds: list[Any] = [ErrorAnswer]
    for route in table.routes:
        kinds += [k for k in (route.body, route.answer) if k is not None and k not in kinds]
    schemas, components = msgspec.json.schema_components(
        kinds, ref_template="#/components/schemas/{name}"
    )
    schema_of = list(zip(kinds, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in table.routes:
        shown = "/".join(f"{{{name}}}" if name else text for name, text in route.segments)
        path = f"{table.prefix}/{shown}"
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": "__Host-border0"},
            },
        },
        "security": [{"token": []}, {"session": []}],
    }


def _operation(route: Route, schemas: list[tuple[Any, dict[str, Any]]]) -> dict[str, Any]:
    def content(kind: Any) -> dict[str, Any]:
        schema = next(schema for known, schema in schemas if known is kind or known == kind)
        return {"application/json": {"schema": schema}}

    answer: dict[str, Any] = {"description": "done"}
    if route.answer is not None:
        answer["content"] = content(route.answer)
    words = [text if not name else f"by_{name}" for name, text in route.segments]
    operation: dict[str, Any] = {
        "operationId": "_".join([route.method.lower(), *words]).replace(".", "_").replace("-", "_"),
        "summary": route.summary,
        "parameters": _parameters(route),
        "responses": {
            str(route.status): answer,
            "default": {"description": "refused or failed", "content": content(ErrorAnswer)},
        },
        "x-permission": route.permission,
    }
    if route.own:
        operation["x-permission-own"] = route.own
    if route.audit:
        operation["x-audit"] = route.audit
    if route.permission == PUBLIC:
        operation["security"] = []
    if route.body is not None:
        operation["requestBody"] = {"required": True, "content": content(route.body)}
    return operation


def _parameters(route: Route) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for name, kind in route.parameters:
        schema = {"type": "string"} if kind == TEXT else {"type": "string", "pattern": UUID_PATTERN}
        found.append({"name": name, "in": "path", "required": True, "schema": schema})
    if route.query is not None:
        (schema,), parts = msgspec.json.schema_components([route.query])
        shape = parts[schema["$ref"].rpartition("/")[2]]
        for name, one in shape["properties"].items():
            required = name in shape.get("required", ())
            found.append({"name": name, "in": "query", "required": required, "schema": one})
    if route.versioned:
        found.append(
            {"name": "If-Match", "in": "header", "required": True, "schema": {"type": "string"}}
        )
    if route.method == "POST" and route.permission != PUBLIC:
        found.append(
            {"name": "Idempotency-Key", "in": "header", "schema": {"type": "string"}},
        )
    return found
