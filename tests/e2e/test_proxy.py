"""A proxy that is a task itself, in front of a service: nobody notices a rollout, nor a control plane that is away."""

import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from tests.e2e.cluster import Up, eventually
from tests.require import require

pytestmark = pytest.mark.e2e

SHOP = """\
kind: Job
name: shop
update: {min_healthy_time: 200ms, max_parallel: 1}
groups:
  - count: 3
    ports: [{name: http}]
    services: [{name: shop, port: http}]
    shutdown_delay: 1500ms
    tasks:
      - config:
          command: [python3, -m, http.server, --bind, 127.0.0.1, --directory, "${TASK_DIR}/site", "${PORT_http}"]
        files: [{path: site/index.html, content: "VERSION"}]
        checks: [{type: http, port: http, interval: 300ms, timeout: 2s}]
"""
# A request goes to one address and no other: what is lost shows.
PROXY = """\
kind: Job
name: proxy
update: {min_healthy_time: 200ms}
groups:
  - ports: [{name: http}]
    tasks:
      - config: {command: [nginx, -p, "${TASK_DIR}", -e, stderr, -c, local/nginx.conf, -g, "daemon off;"]}
        files:
          - path: local/upstream.conf
            services: [shop]
            each: "server ${ADDR} max_fails=0;"
            on_change: SIGHUP
          - path: local/nginx.conf
            content: |
              pid nginx.pid;
              user USER;
              worker_processes 1;
              events {}
              http {
                access_log off;
                client_body_temp_path body;
                proxy_temp_path proxy;
                fastcgi_temp_path fastcgi;
                uwsgi_temp_path uwsgi;
                scgi_temp_path scgi;
                upstream shop {
                  server 127.0.0.1:1 down;
                  include upstream.conf;
                }
                server {
                  listen 127.0.0.1:${PORT_http};
                  location / {
                    proxy_pass http://shop;
                    proxy_next_upstream off;
                  }
                }
              }
        checks: [{type: tcp, port: http, interval: 300ms, timeout: 2s}]
"""


class Visitor:
    """Asks for a page again and again, and counts what came of it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._leaves = threading.Event()
        self.seen: Counter[str] = Counter()
        self.bad: list[str] = []
        self.last = ""

    def run(self) -> None:
        while not self._leaves.is_set():
            try:
                answer = requests.get(self._url, timeout=10)
            except requests.RequestException as error:
                self.bad.append(f"{time.strftime('%X')} {error}")
                continue
            if answer.status_code == 200:
                self.last = answer.text
                self.seen[answer.text] += 1
            else:
                self.bad.append(f"{time.strftime('%X')} {answer.status_code}")

    def leave(self) -> None:
        self._leaves.set()


@contextmanager
def visiting(url: str) -> Iterator[Visitor]:
    visitor = Visitor(url)
    thread = threading.Thread(target=visitor.run, daemon=True)
    thread.start()
    try:
        yield visitor
    finally:
        visitor.leave()
        thread.join(20)


def upstreams(file: Path) -> list[str]:
    """The addresses the proxy's file has."""
    return sorted(re.findall(r"^server (\S+) max_fails=0;$", file.read_text(), re.MULTILINE))


def found(up: Up) -> list[str]:
    return sorted(one["address"] for one in up.api.get("/services/shop")["addresses"])


def test_a_rollout_behind_a_proxy_loses_no_request(up: Up) -> None:
    require("nginx")
    up.specs.write("shop.yaml", SHOP.replace("VERSION", "one"))
    up.specs.write("proxy.yaml", PROXY.replace("USER", Path("/proc/self").owner()))
    up.start()
    up.api.until_running("shop", 3)
    proxy = up.api.until_running("proxy", 1)
    [allocation] = up.api.allocations("proxy")
    [file] = up.folder.rglob(f"{allocation['id']}/tasks/*/local/upstream.conf")
    assert oct(file.stat().st_mode)[-3:] == "644"
    up.api.until(lambda: len(upstreams(file)) == 3 and upstreams(file) == found(up))
    url = f"http://127.0.0.1:{allocation['ports']['http']}/"
    # Workers of before the first addresses take connections for a moment beside those of after.
    up.api.until(lambda: all(requests.get(url, timeout=10).ok for _ in range(30)))

    with visiting(url) as visitor:
        eventually(lambda: visitor.seen["one"] >= 10, picture=lambda: str(visitor.bad))
        up.specs.write("shop.yaml", SHOP.replace("VERSION", "two"))

        def rolled() -> bool:
            texts = {one["job_version"] for one in up.api.allocations("shop")}
            return len(texts) == 1 and up.api.job("shop")["version"] in texts

        up.api.until(rolled)
        up.api.until_running("shop", 3)
        up.api.until(lambda: len(upstreams(file)) == 3 and upstreams(file) == found(up))

        # What is known outlives the control plane, and the agent with it.
        before = file.stat().st_mtime_ns
        up.running.kill()
        seen = visitor.seen["two"]
        eventually(lambda: visitor.seen["two"] >= seen + 20)
        up.start()
        up.api.until_running("proxy", 1)
        up.api.until(lambda: upstreams(file) == found(up))
        assert file.stat().st_mtime_ns == before

    assert visitor.bad == []
    assert visitor.last == "two"
    assert visitor.seen.keys() == {"one", "two"}
    # Only signals came to the proxy: it was not started anew.
    assert up.api.running("proxy") == proxy
