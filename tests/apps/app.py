"""The app behind the proxy in the end-to-end tests: the same answers as app.js, as ASGI and as WSGI.

    COLOR=blue uvicorn --app-dir tests/apps --port 8001 app:asgi
    COLOR=blue gunicorn --chdir tests/apps --bind 127.0.0.1:8001 --threads 8 app:wsgi

Every answer names the color in a header and in the body, and tells what arrived, so that a client can check each byte.
"""

import asyncio
import hashlib
import json
import os
import time
from urllib.parse import parse_qs

COLOR = os.environ.get("COLOR", "none")
REVISION = os.environ.get("REVISION", "")
health_status = 200


def describe(method, path, headers, digest, length):
    """What /whoami and every echo say."""
    return {
        "color": COLOR,
        "revision": REVISION,
        "pid": os.getpid(),
        "method": method,
        "path": path,
        "length": length,
        "sha256": digest,
        "host": headers.get("host", ""),
        "forwarded_for": headers.get("x-forwarded-for", ""),
        "forwarded_proto": headers.get("x-forwarded-proto", ""),
        "request_id": headers.get("x-request-id", ""),
    }


def number(query, name, default):
    return int(parse_qs(query).get(name, [default])[0])


def answer(method, path, headers, digest, length, body):
    """Status and JSON of everything that is not slow and no stream."""
    global health_status
    if path == "/admin/health" and method == "POST":
        health_status = int(body or b"200")
    if path == "/healthz":
        return health_status, {"status": "ok" if health_status < 300 else "failing", "color": COLOR}
    return 200, describe(method, path, headers, digest, length)


def head(payload):
    return [("content-type", "application/json"), ("content-length", str(len(payload))), ("x-app-color", COLOR)]


def block(kib):
    """1 KiB of known bytes: the color's letter."""
    return COLOR[:1].encode() * 1024


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["type"] != "http":
        return
    digest, length, kept = hashlib.sha256(), 0, b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        chunk = message.get("body", b"")
        digest.update(chunk)
        length += len(chunk)
        kept = (kept + chunk)[:64]
        if not message.get("more_body"):
            break
    method, path, query = scope["method"], scope["path"], scope["query_string"].decode()
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    if path.endswith("/stream"):
        kib = number(query, "kb", 64)
        fields = [(b"content-type", b"application/octet-stream"), (b"x-app-color", COLOR.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        for _ in range(kib):
            await send({"type": "http.response.body", "body": block(kib), "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        return
    if path.endswith("/slow"):
        await asyncio.sleep(number(query, "ms", 100) / 1000)
    status, said = answer(method, path, headers, digest.hexdigest(), length, kept)
    said["http"] = scope["http_version"]
    payload = json.dumps(said).encode()
    fields = [(name.encode(), value.encode()) for name, value in head(payload)]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": payload})


def wsgi(environ, start_response):
    digest, length, kept = hashlib.sha256(), 0, b""
    while True:
        chunk = environ["wsgi.input"].read(65536)
        if not chunk:
            break
        digest.update(chunk)
        length += len(chunk)
        kept = (kept + chunk)[:64]
    method, path, query = environ["REQUEST_METHOD"], environ["PATH_INFO"], environ.get("QUERY_STRING", "")
    headers = {name[5:].lower().replace("_", "-"): value for name, value in environ.items() if name.startswith("HTTP_")}
    if path.endswith("/stream"):
        kib = number(query, "kb", 64)
        start_response("200 OK", [("content-type", "application/octet-stream"), ("x-app-color", COLOR)])
        return (block(kib) for _ in range(kib))
    if path.endswith("/slow"):
        time.sleep(number(query, "ms", 100) / 1000)
    status, said = answer(method, path, headers, digest.hexdigest(), length, kept)
    payload = json.dumps(said).encode()
    start_response(f"{status} Any", head(payload))
    return [payload]
