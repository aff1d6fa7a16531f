"""The CloudEvents SDK for Python as it comes: posts the calls on stdin, in its three modes by turns."""

from __future__ import annotations

import json
import sys

import httpx
from cloudevents.core.bindings.http import to_binary_event, to_structured_event
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

url, key = sys.argv[1:]
http = httpx.Client(headers={"authorization": f"Bearer {key}"}, timeout=15, trust_env=False)


def post(content: bytes, headers: dict[str, str]) -> None:
    """One request, answered 202 with nothing refused."""
    answer = http.post(f"{url}/v1/events", content=content, headers=headers)
    assert answer.status_code == 202, answer.text
    assert not answer.json()["rejected"], answer.text


together = []
for number, call in enumerate(json.load(sys.stdin)):
    attributes = {
        "id": call["messageId"],
        "source": "https://shop.example/clients",
        "type": f"example.shop.{call['type']}",
        "subject": call["userId"],
        "channel": "web",
    }
    event = CloudEvent(attributes, call["properties"])
    if number % 3 == 0:
        message = to_binary_event(event)
        post(message.body, message.headers)
    elif number % 3 == 1:
        message = to_structured_event(event)
        post(message.body, message.headers)
    else:
        together.append(JSONFormat().write(event))
for start in range(0, len(together), 100):
    content = b"[" + b",".join(together[start : start + 100]) + b"]"
    post(content, {"content-type": "application/cloudevents-batch+json"})
