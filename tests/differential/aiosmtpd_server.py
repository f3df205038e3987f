"""aiosmtpd for the comparison: `python -m tests.differential.aiosmtpd_server PORT FOLDER MAILS`, until SIGTERM.

It takes any mail and any password, has STARTTLS with the certificate in FOLDER, and appends each mail to MAILS as one
JSON line.
"""

from __future__ import annotations

import asyncio
import json
import signal
import ssl
import sys
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult


class Keeper:
    def __init__(self, path: Path) -> None:
        self.path = path

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        told = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "options": [envelope.mail_options, envelope.rcpt_options],
            "content": envelope.original_content.decode("latin-1"),
        }
        with self.path.open("a") as kept:
            kept.write(json.dumps(told) + "\n")
        return "250 2.0.0 Message accepted"


async def serve(port: int, folder: Path, kept: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    keeper = Keeper(kept)

    def session() -> SMTP:
        return SMTP(
            keeper,
            hostname="mail.domain1.com",
            tls_context=context,
            auth_require_tls=False,
            authenticator=lambda *_: AuthResult(success=True),
            timeout=30,
        )

    loop = asyncio.get_running_loop()
    server = await loop.create_server(session, "127.0.0.1", port, backlog=500)
    over = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, over.set)
    await over.wait()
    server.close()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])))
