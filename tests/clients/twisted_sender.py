"""`python -m tests.clients.twisted_sender PORT CA SENDER RECIPIENT HELO required|offered`: stdin is sent over TLS."""

from __future__ import annotations

import io
import sys
from pathlib import Path

from twisted.internet import defer, reactor, ssl
from twisted.mail.smtp import ESMTPSenderFactory
from twisted.python.failure import Failure

from tests.certificates import NAME


def main(port: str, ca: str, sender: str, recipient: str, helo: str, tls: str) -> int:
    failures: list[str] = []
    sent: defer.Deferred[object] = defer.Deferred()
    trust = ssl.trustRootFromCertificates([ssl.Certificate.loadPEM(Path(ca).read_bytes())])
    context = ssl.optionsForClientTLS(NAME, trust) if tls == "required" else ssl.CertificateOptions()
    factory = ESMTPSenderFactory(
        None, None, sender, recipient, io.BytesIO(sys.stdin.buffer.read()), sent, retries=0, timeout=14,
        contextFactory=context, requireAuthentication=False, requireTransportSecurity=tls == "required",
        hostname=helo,
    )  # fmt: skip

    def failed(failure: Failure) -> None:
        failures.append(failure.getErrorMessage())

    sent.addErrback(failed)
    sent.addCallback(lambda _: reactor.stop())
    reactor.callWhenRunning(reactor.connectTCP, "127.0.0.1", int(port), factory)
    reactor.callLater(15, reactor.stop)
    reactor.run()
    sys.stderr.write("".join(failures) or ("" if sent.called else "hung"))
    return 1 if failures or not sent.called else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
