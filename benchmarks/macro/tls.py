"""TLS in front of the fake provider: an nginx that ends it, on the provider's core, and its certificate."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.macro.running import Fault, pinned

SECONDS: Final = 60
# TLS 1.3 alone, so that no contender has the cheaper handshakes of 1.2. Records of 4 KiB: providers send small ones,
# and the default of 16 KiB would hide what a record costs.
CONFIG: Final = """\
daemon off;
worker_processes 1;
error_log stderr warn;
pid front.pid;
events {{ worker_connections 20000; }}
http {{
  access_log off;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  upstream provider {{ server 127.0.0.1:{provider}; keepalive 9000; }}
  server {{
    listen 127.0.0.1:{port} ssl backlog=4096;
    ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_protocols TLSv1.3; ssl_buffer_size 4k;
    keepalive_requests 1000000000;
    location / {{
      proxy_pass http://provider; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
    }}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate that signs itself, for 127.0.0.1.

    Args:
        path: Its file.
        key: The file of its key.
    """

    path: Path
    key: Path


def certificate(folder: Path) -> Certificate:
    """Makes a certificate in a folder. It is no authority's, which some clients refuse as a server's.

    Raises:
        Fault: There is no openssl, or it fails.
    """
    made = Certificate(folder / "certificate.pem", folder / "key.pem")
    if shutil.which("openssl") is None:
        raise Fault("openssl is not installed: it makes the certificate of the TLS scenarios")
    command = ["openssl", *"req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext".split()]
    command += ["subjectAltName=DNS:localhost,IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"]
    command += ["-keyout", str(made.key), "-out", str(made.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    if done.returncode:
        raise Fault(f"openssl: {done.stderr.strip().splitlines()[-1]}")
    return made


def front(certificate: Certificate, port: int, provider: int) -> list[str]:
    """Returns the command of the nginx that ends TLS.

    Args:
        certificate: Its certificate; its folder gets the configuration, and nginx's own files.
        port: The port to listen on.
        provider: The port of the fake provider.

    Raises:
        Fault: nginx is not installed.
    """
    if shutil.which("nginx") is None:
        raise Fault("nginx is not installed: it ends TLS in front of the fake provider")
    folder = certificate.path.parent / "front"
    folder.mkdir(exist_ok=True)
    config = folder / "nginx.conf"
    text = CONFIG.format(port=port, provider=provider, certificate=certificate.path, key=certificate.key)
    config.write_text(text)
    return pinned(["nginx", "-p", str(folder), "-c", str(config)], relay=False)
