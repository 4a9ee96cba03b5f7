"""nginx in front of the nodes, with deploy/nginx.conf: only its ports, its certificate and its servers are changed."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llmapi.launch import ROOT, free_port

HOST = "chat.example.com"
SERVER = "    server 127.0.0.1:{} max_fails=0;\n"
MAIN = """\
daemon off;
pid nginx.pid;
error_log error.log;
worker_processes 2;
events {{ worker_connections 1024; }}
http {{
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    log_format way '$msec $request_time $status "$upstream_addr" "$http_idempotency_key"';
    access_log access.log way;
    {site}
}}
"""
LINE = re.compile(r'(?P<end>[\d.]+) (?P<seconds>[\d.]+) \d+ "(?P<upstream>[^"]*)" "(?P<key>[^"]*)"')


@dataclass(frozen=True)
class Proxy:
    folder: Path
    port: int

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def certificate(self) -> str:
        return str(self.folder / "fullchain.pem")

    def keys_in_flight(self, node_port: int, instant: float) -> set[str]:
        """Return the Idempotency-Keys of requests that the proxy had passed to a node at this instant (Unix time)."""
        text = (self.folder / "access.log").read_text()
        return in_flight(text, f"127.0.0.1:{node_port}", instant)


def in_flight(log: str, upstream: str, instant: float) -> set[str]:
    found = (match for match in map(LINE.match, log.splitlines()) if match)
    # A line is written at the end of its request; both of its times are in milliseconds.
    return {
        match["key"]
        for match in found
        if match["upstream"].endswith(upstream)  # after those that could not be reached
        and float(match["end"]) - float(match["seconds"]) - 0.01 <= instant <= float(match["end"]) + 0.01
    } - {"", "-"}


@contextlib.contextmanager
def running(folder: Path, node_ports: list[int]) -> Iterator[Proxy]:
    if not shutil.which("nginx"):
        raise SystemExit("nginx is missing; install it (Debian: apt-get install nginx-light).")
    folder.mkdir()
    port = free_port()
    make_certificate(folder)
    user = "user root;\n" if os.getuid() == 0 else ""
    site = site_of((ROOT / "deploy/nginx.conf").read_text(), folder, port, node_ports)
    (folder / "nginx.conf").write_text(user + MAIN.format(site=site))
    process = subprocess.Popen(["nginx", "-p", folder, "-e", "error.log", "-c", "nginx.conf"])
    try:
        wait_until_open(port, process)
        yield Proxy(folder, port)
    finally:
        process.terminate()
        process.wait(30)


def site_of(text: str, folder: Path, port: int, node_ports: list[int]) -> str:
    """Return deploy/nginx.conf with these ports and this folder in place of those of a host."""
    changes = {
        SERVER.format(8080): "".join(map(SERVER.format, node_ports)),
        "    listen 80;\n    listen [::]:80;\n": f"    listen 127.0.0.1:{free_port()};\n",
        "    listen 443 ssl http2;\n    listen [::]:443 ssl http2;\n": f"    listen 127.0.0.1:{port} ssl http2;\n",
        f"/etc/letsencrypt/live/{HOST}/": f"{folder}/",
    }
    for written, wanted in changes.items():
        if written not in text:
            raise SystemExit(f"deploy/nginx.conf has no {written.strip()!r}; bench/rehearsal/proxy.py must follow it.")
        text = text.replace(written, wanted)
    return text


def make_certificate(folder: Path) -> None:
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    names = ["-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST},IP:127.0.0.1"]
    files = ["-keyout", f"{folder}/privkey.pem", "-out", f"{folder}/fullchain.pem"]
    subprocess.run(["openssl", "req", "-x509", *key, *names, *files], check=True, capture_output=True)


def wait_until_open(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise SystemExit("nginx did not start; its messages are above.")
