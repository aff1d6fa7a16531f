"""segment-analytics-python or rudder-sdk-python as it comes: posts the calls on stdin."""

from __future__ import annotations

import importlib
import json
import os
import re
import sys

module, url, key = sys.argv[1:]
client_type = importlib.import_module(module).Client
failed: list[object] = []
client = client_type(
    key,
    host=url,
    gzip=True,
    max_retries=int(os.environ.get("MAX_RETRIES", "0")),
    on_error=lambda error, _: failed.append(error),
)
for call in json.load(sys.stdin):
    post = getattr(client, call.pop("call"))
    post(**{re.sub("([A-Z])", r"_\1", name).lower(): value for name, value in call.items()})
client.shutdown()
sys.exit(f"{failed}" if failed else 0)
