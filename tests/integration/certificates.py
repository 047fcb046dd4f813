"""A certificate authority of the tests, and the certificates that it issues."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients that speak without TLS: an SDK's client loads those of all authorities, 29 ms."""


class Authority:
    """Certificates, made by the openssl command."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._new_key("ca")
        self._openssl(
            *("req -x509 -new -key ca.key -out ca.pem -days 60 -subj /CN=gai-fast-tests").split(),
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        )
        self.issue("good", "DNS:localhost,IP:127.0.0.1")
        self.issue("elsewhere", "DNS:elsewhere.example")
        self.issue("expired", "DNS:localhost,IP:127.0.0.1", days=-1)
        for name, days in (("client", 60), ("ending-client", 3), ("expired-client", -1)):
            self.issue(name, "DNS:gateway", days, "extendedKeyUsage=clientAuth\n")
        self._new_key("own")
        self._openssl(
            *"req -x509 -new -key own.key -out own.pem -days 60 -subj /CN=localhost -addext".split(),
            "subjectAltName=DNS:localhost,IP:127.0.0.1",
        )

    def issue(self, name: str, names: str, days: int = 60, more: str = "") -> None:
        (self.folder / f"{name}.ext").write_text(
            f"subjectAltName={names}\nauthorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n{more}"
        )
        self._new_key(name)
        self._openssl(*f"req -new -key {name}.key -out {name}.csr -subj /CN={name}".split())
        self._openssl(
            *f"x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out {name}.pem".split(),
            *f"-days {days} -extfile {name}.ext".split(),
        )

    def _new_key(self, name: str) -> None:
        self._openssl(*f"ecparam -name prime256v1 -genkey -noout -out {name}.key".split())

    def _openssl(self, *arguments: str) -> None:
        done = subprocess.run(["openssl", *arguments], cwd=self.folder, capture_output=True, timeout=100, check=False)
        assert done.returncode == 0, done.stderr.decode()

    def server(self, name: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        return context

    def pair(self, name: str) -> dict[str, str]:
        """Returns the keys of `[server]` that name its files."""
        return {"tls_cert": str(self.folder / f"{name}.pem"), "tls_key": str(self.folder / f"{name}.key")}

    def client(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
