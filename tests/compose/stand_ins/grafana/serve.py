"""Reads data sources and dashboards from where they are provisioned, and tells of them as Grafana does."""

import json
import os
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import yaml

PROVISIONING = Path("/etc/grafana/provisioning")


def provisioned() -> tuple[list[dict], list[dict]]:
    """Data sources, and dashboards; raises for a file that Grafana could not read."""
    sources = [
        source
        for file in sorted((PROVISIONING / "datasources").glob("*.y*ml"))
        for source in yaml.safe_load(file.read_text())["datasources"]
    ]
    folders = [
        Path(provider["options"]["path"])
        for file in sorted((PROVISIONING / "dashboards").glob("*.y*ml"))
        for provider in yaml.safe_load(file.read_text())["providers"]
    ]
    files = [file for folder in folders for file in sorted(folder.rglob("*.json"))]
    return sources, [json.loads(file.read_text()) for file in files]


class Answers(BaseHTTPRequestHandler):
    """Health, data sources and their reachability, dashboards."""

    def do_GET(self) -> None:
        sources, boards = provisioned()
        path = self.path.partition("?")[0]
        if path == "/api/health":
            return self._say({"database": "ok", "version": "stand-in"})
        if path == "/api/datasources":
            return self._say([{"uid": source["uid"], "url": source["url"]} for source in sources])
        if path == "/api/datasources/health":
            urls = [source["url"] + "/-/ready" for source in sources]
            return self._say([urllib.request.urlopen(url, timeout=5).status for url in urls])
        if path == "/api/search":
            return self._say([{"uid": board["uid"], "title": board["title"]} for board in boards])
        return self.send_error(404)

    def _say(self, answer: object) -> None:
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    assert Path(os.environ["GF_SECURITY_ADMIN_PASSWORD__FILE"]).read_text().strip()
    provisioned()
    ThreadingHTTPServer(("0.0.0.0", 3000), Answers).serve_forever()
