"""nginx, `proxy_pass` without buffering: the cost of copying the bytes. The baseline of every ratio."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from urllib.parse import urlsplit

from benchmarks.contenders import CHAT, MESSAGES, RESPONSES, Contender, Place

# The folders are nginx's own temporary ones, which it makes at the start whether it needs them or not.
CONFIG = """\
daemon off;
worker_processes 1;
error_log stderr warn;
pid nginx.pid;
events {{ worker_connections 20000; }}
http {{
  access_log off; client_body_buffer_size 64k;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  upstream provider {{ server {upstream}; keepalive 9000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    keepalive_requests 1000000000;
    location / {{
      proxy_pass {scheme}://provider; {tls}
      proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
    }}
  }}
}}
"""
# nginx verifies only if it is asked to, which every other contender does by itself, and knows no addresses as names.
# Before 1.23.4 it would speak TLS 1.2, whose resumed handshakes exchange no keys: the first tokens of a cold start over
# 1.2 came in 75 ms, and over 1.3, which all others speak, in 130.
TLS = "proxy_ssl_verify on; proxy_ssl_trusted_certificate {}; proxy_ssl_name localhost; proxy_ssl_protocols TLSv1.3;"


def _prepare(place: Place) -> None:
    if shutil.which("nginx") is None:
        raise RuntimeError("nginx is not installed")


def _command(place: Place) -> Sequence[str]:
    config = place.folder / "nginx.conf"
    url = urlsplit(place.upstream)
    tls = TLS.format(place.certificate) if place.certificate else ""
    config.write_text(CONFIG.format(upstream=url.netloc, scheme=url.scheme, tls=tls, port=place.port))
    return "nginx", "-p", str(place.folder), "-c", str(config)


CONTENDERS = (
    Contender(
        name="nginx",
        does="copies bytes",
        note="proxy_pass, proxy_buffering off, one worker",
        command=_command,
        route=CHAT,
        wires={"formats": CHAT, "responses": RESPONSES, "messages": MESSAGES},
        version=lambda place: ("nginx", "-v"),
        prepare=_prepare,
        quick=True,
    ),
)
