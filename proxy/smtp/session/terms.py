"""What the parts of a session call things: its phases, the kinds of reply that may be owed, and its limits.

Phases and kinds are plain numbers, since they are compared for every line.
"""

from __future__ import annotations

from typing import Final

MAX_REPLY_LINE: Final = 16384  # a reply line beyond it is not read any further (Exim reads 4096, Postfix 2048)
MAX_WAITING: Final = 65536  # client bytes that may wait; beyond it the edge stops reading (one socket buffer's worth)
MAX_HELD: Final = 65536  # octets of a reply that is held for the proxy itself, or of that to STARTTLS
MAX_OWED: Final = 1000  # replies that may be owed; then the client is not read (Postfix drops a client that pipelines
# 100 junk commands, smtpd_junk_command_limit; a real one sends a recipient a command, and those are not read here)
MAX_COMMANDS: Final = 100  # commands that one call works through, some 2 us each; `ReadOn` is for the rest
EHLO_WAIT: Final = 0.2  # seconds that a reply with a doubtful end waits for more
BANNER_OR_NEXT: Final = 30.0  # seconds that a silent server is given while another destination is left
GOES_ON_AFTER: Final = 60.0  # seconds of silence after which a server that goes on after the usual wait is over


class Phase:
    """Where the session stands.

    CONNECTING -> OPENING -> COMMANDS -> (HELLO ->) RELEASED -> ENDED; bridge mode has others between while a handshake
    is under way, and when it has failed.  Any phase may go to ENDED.  Up to SECURING_SERVER the client speaks in clear
    lines, unless its direction was let go of before the server's.
    """

    CONNECTING: Final = 0  # no server yet; what the client says waits
    OPENING: Final = 1  # the server is connected, its banner is not over
    COMMANDS: Final = 2  # commands and replies are read
    REFUSING: Final = 3  # bridge: no mail in clear may follow; the server is dropped, the next command is the last
    SECURING_SERVER: Final = 4  # bridge: a TLS handshake is under way with the server; what the client says waits
    HELLO: Final = 5  # 220 to STARTTLS was forwarded; the client's first byte is awaited
    SECURING_CLIENT: Final = 6  # ... and now with the client
    RELEASED: Final = 7  # both directions are byte relays
    ENDED: Final = 8


class Reply:
    """What kind of reply is owed next, since that decides how it is read.

    What is pipelined behind one of the first three waits for it.
    """

    EHLO: Final = 0
    UNREPAIRED: Final = 1  # the rest of an EHLO reply that is too long to be repaired
    STARTTLS: Final = 2
    BANNER: Final = 3
    LISTING: Final = 4  # to EXPN or VRFY: may be several lines of free text
    HELO: Final = 5
    HELP: Final = 6  # may be so, too
    NOOP: Final = 7
    OTHER: Final = 8
    XCLIENT: Final = 9  # to the proxy's own XCLIENT
    UNREAD: Final = 10  # to the command at which the client's direction was let go


class Refusal:
    """The session is to end with a 421: status and cause for the client, outcome and whose fault for the log.

    `when`: at once; at the client's next command; or so, and a 454 in answer to its STARTTLS before.
    """

    __slots__ = ("by", "cause", "outcome", "status", "when")

    NOW: Final = 0
    AT_NEXT: Final = 1
    BEHIND_454: Final = 2

    def __init__(self, status: str, cause: str, outcome: str, by: str = "proxy", when: int = 0) -> None:
        self.status = status
        self.cause = cause
        self.outcome = outcome
        self.by = by
        self.when = when
