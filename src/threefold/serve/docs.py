"""/docs: the service's OpenAPI as one page of plain HTML, made here.

Swagger and Redoc load a megabyte of scripts from another host, which a service without internet cannot and one with a
strict content policy may not. Those who want them point theirs at /openapi.json.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

CSS = Path(__file__).with_name("docs.css")


def docs_page(schema: Mapping[str, Any]) -> str:
    """HTML of an OpenAPI 3.1 document: every route with its parameters, examples, answers and errors."""
    title = escape(f"{schema['info']['title']} {schema['info']['version']}")
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="stylesheet" href="/docs/style.css"></head><body><main><h1>{title}</h1>',
        *(f"<p>{escape(text)}</p>" for text in schema["info"].get("description", "").split("\n\n")),
        '<p>For programs: <a href="/openapi.json">/openapi.json</a>.</p>',
    ]
    for path, methods in schema["paths"].items():
        for method, route in methods.items():
            parts += _route(f"{method.upper()} {path}", route, schema)
    return "\n".join([*parts, "</main></body></html>\n"])


def _route(title: str, route: Mapping[str, Any], schema: Mapping[str, Any]) -> list[str]:
    parts = [f"<h2><code>{escape(title)}</code> {escape(route.get('summary', ''))}</h2>"]
    parts += [f"<p>{escape(text)}</p>" for text in route.get("description", "").split("\n\n") if text]
    for given in route.get("parameters", []):
        words = f"{given['in']}{', required' if given.get('required') else ''}: {given.get('description', '')}"
        parts.append(f"<p><code>{escape(given['name'])}</code> ({escape(words)})</p>")
    for kind, content in route.get("requestBody", {}).get("content", {}).items():
        parts += _example(f"Body, {kind}", content, schema)
    rows = "".join(
        f"<tr><td>{escape(status)}</td><td>{escape(said['description'])}</td></tr>"
        for status, said in route["responses"].items()
    )
    parts.append(f"<table><thead><tr><th>Status</th><th>Meaning</th></tr></thead><tbody>{rows}</tbody></table>")
    for status, said in route["responses"].items():
        if status == "200":
            for kind, content in said.get("content", {}).items():
                parts += _example(f"Answer, {kind}", content, schema)
    return parts


def _example(title: str, content: Mapping[str, Any], schema: Mapping[str, Any]) -> list[str]:
    shown = content.get("example")
    if shown is None:
        shown = _from_schema(content.get("schema", {}), schema)
    if shown is None:
        return [f"<p>{escape(title)}</p>"]
    text = shown if isinstance(shown, str) else json.dumps(shown, indent=2, ensure_ascii=False)
    return [f"<p>{escape(title)}</p>", f'<pre tabindex="0">{escape(text)}</pre>']


def _from_schema(part: Mapping[str, Any], schema: Mapping[str, Any]) -> Any:
    """An example out of those that a schema's fields have; None where they have none."""
    if "$ref" in part:
        return _from_schema(schema["components"]["schemas"][part["$ref"].rsplit("/", 1)[-1]], schema)
    for known in (part.get("examples"), [part["const"]] if "const" in part else None, part.get("enum")):
        if known:
            return known[0]
    if "properties" in part:
        fields = {name: _from_schema(value, schema) for name, value in part["properties"].items()}
        return {name: value for name, value in fields.items() if value is not None} or None
    if "items" in part:
        inner = _from_schema(part["items"], schema)
        return None if inner is None else [inner]
    return None
