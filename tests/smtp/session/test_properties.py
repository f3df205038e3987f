"""Claims that hold for every conversation, on conversations that nobody thought of."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.smtp.reply.repair import EhloContext, RepairPolicy, repair_reply
from proxy.smtp.session.events import (
    Action,
    ClientTls,
    End,
    FinishServer,
    FreshConnection,
    NextDestination,
    ReleaseClient,
    ReleaseServer,
    ServerTls,
    ToClient,
    ToServer,
)
from proxy.smtp.session.parts.server import NOTHING_LEARNT
from proxy.smtp.session.policy import BridgePolicy, DestinationMemory, SessionPolicy
from proxy.smtp.session.session import Session
from proxy.smtp.session.terms import MAX_OWED, Phase
from tests.playbook import (
    BANNER,
    Client,
    ClientEnds,
    ClientTlsFailed,
    ClientTlsReady,
    Connected,
    Drain,
    Event,
    Player,
    Server,
    ServerEnds,
    ServerTlsFailed,
    ServerTlsReady,
    Unreachable,
    Wait,
)

POINTS = (
    End,
    FinishServer,
    ReleaseClient,
    ReleaseServer,
    NextDestination,
    FreshConnection,
    ServerTls,
    ClientTls,
)


def player(
    policy: SessionPolicy | None = None, *, trusted: bool = True, memory: DestinationMemory | None = None
) -> Player:
    memory = memory or DestinationMemory()
    session = Session(policy or SessionPolicy(), 1000.0, client_trusted=trusted, client_address="198.51.100.7")
    return Player(session, memory)


def to_client(actions: Sequence[Action]) -> bytes:
    return b"".join(action.data for action in actions if isinstance(action, ToClient))


def to_server(actions: Sequence[Action]) -> bytes:
    return b"".join(action.data for action in actions if isinstance(action, ToServer))


def points(actions: Sequence[Action]) -> list[Action]:
    return [action for action in actions if isinstance(action, POINTS)]


# -- conversations of peers that mean well, and servers that can't write EHLO replies ---------------------------------

TEXT = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=12).map(str.encode)
END = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n"])


@st.composite
def replies(draw: st.DrawFn) -> bytes:
    """Any reply of one or more lines that is no 220, and none that a late EHLO line could be taken for."""
    code = draw(st.sampled_from([b"250", b"214", b"252", b"354", b"421", b"454", b"500", b"550"]))
    lines = draw(st.lists(TEXT, max_size=3))
    return b"".join(code + b"-2.0.0 " + line + b"\r\n" for line in lines) + code + b" 2.0.0 Ok" + draw(END)


@st.composite
def plain_exchange(draw: st.DrawFn) -> tuple[bytes, bytes, bool]:
    """Commands that are read, pipelined, and their replies."""
    commands, answers = b"", b""
    for _ in range(draw(st.integers(1, 4))):
        verb = draw(st.sampled_from([b"NOOP", b"rset", b"HELO x", b"VRFY a", b"help", b"EXPN l", b" NOOP\t"]))
        commands += verb + draw(END)
        answers += draw(replies())
    return commands, answers, False


HOSTS = [b"mail.example.com", b"mail.example.com Hello you", b"relay.example.net", b"[192.0.2.1]"]
WORDS = [
    b"STARTTLS",
    b"starttls",
    b"8BITMIME",
    b"SIZE 1000",
    b"AUTH LOGIN PLAIN",
    b"XFOO",
    b"DSN",
    b"STARTTLS=1",
    b"HELP ",
]


@st.composite
def ehlo_exchange(draw: st.DrawFn) -> tuple[bytes, bytes, bool]:
    """EHLO and a reply that is broken in any way but an early end."""
    hosts = draw(st.lists(st.sampled_from(HOSTS), max_size=1))
    words = draw(st.permutations(draw(st.lists(st.sampled_from(WORDS), min_size=1 - len(hosts), max_size=5)) + hosts))
    end = draw(END)
    separator = draw(st.sampled_from([b"-", b"-", b"-", b"_"]))
    lines = [b"250" + separator + word + end for word in words[:-1]]
    last = draw(st.sampled_from([b"250 ", b"250 ", b"250-"]))
    blank = draw(st.sampled_from([b"", b"", b"\r\n"]))
    verb = draw(st.sampled_from([b"EHLO client.example\r\n", b"LHLO x\n", b"ehlo\r\n"]))
    return verb, b"".join(lines) + last + words[-1] + end + blank, True


REFUSED_TLS = st.tuples(
    st.just(b"STARTTLS\r\n"), st.sampled_from([b"454 no\r\n", b"502-a\r\n502 b\r\n"]), st.just(False)
)
EXCHANGES = st.lists(plain_exchange() | ehlo_exchange() | REFUSED_TLS, max_size=6)
GO = st.tuples(
    st.sampled_from([b"MAIL FROM:<>\r\n", b"AUTH PLAIN =\r\n", b"XYZ\n", b"BDAT 3\r\nabc"]), st.binary(max_size=60)
)
ANSWER = st.sampled_from([b"250 2.1.0 Ok\r\n", b"334 \r\n", b"535-no\r\n535 no\r\n"])


def cut(data: bytes, at: Sequence[int]) -> list[bytes]:
    places = sorted({0, len(data), *(place % (len(data) + 1) for place in at)})
    return [data[start:end] for start, end in pairwise(places)]


CUTS = st.lists(st.integers(0, 1000), max_size=8)


@given(EXCHANGES, GO, ANSWER, st.binary(max_size=60), st.lists(CUTS, min_size=1, max_size=20))
def test_what_is_forwarded_is_what_was_sent_but_for_the_repaired_replies_however_it_is_cut(
    exchanges: list[tuple[bytes, bytes, bool]],
    go: tuple[bytes, bytes],
    answer: bytes,
    rest: bytes,
    cuts: list[list[int]],
) -> None:
    play = player()
    actions = play.happens(Connected())
    actions += play.happens(Server(BANNER))
    said, heard = b"", BANNER
    turn = 0
    for command, reply, is_ehlo in exchanges:
        for piece in cut(command, cuts[turn % len(cuts)]):
            actions += play.happens(Client(piece))
        for piece in cut(reply, cuts[(turn + 1) % len(cuts)]):
            actions += play.happens(Server(piece))
        actions += play.happens(Wait(61.0))
        said += command
        if is_ehlo:
            name = command.split(None, 1)[1:]
            context = EhloContext(BANNER, b"mail.example.com", b"192.0.2.1", name[0].strip() if name else b"")
            heard += repair_reply(reply, RepairPolicy(), context).reply
        else:
            heard += reply
        turn += 2
    assert to_server(actions) == said
    assert to_client(actions) == heard
    for piece in cut(b"".join(go), cuts[turn % len(cuts)]):
        actions += play.happens(Client(piece))
    for piece in cut(answer + rest, cuts[(turn + 1) % len(cuts)]):
        actions += play.happens(Server(piece))
    assert to_server(actions) == said + b"".join(go)
    assert to_client(actions) == heard + answer + rest
    assert points(actions) == [ReleaseClient(), ReleaseServer(False)]


# -- anything at all -------------------------------------------------------------------------------------------------

TOKENS = st.sampled_from(
    [b"EHLO x\r\n", b"HELO x\r\n", b"STARTTLS\r\n", b"starttls x\n", b"NOOP\r\n", b"QUIT\r\n", b"MAIL FROM:<>\r\n",
     b"RSET\r\n", b"XCLIENT ADDR=1.2.3.4\r\n", b"HELP\r\n", b"EXPN\r\n", b"AUTH PLAIN\r\n", b"220 x\r\n", b"220-x\r\n",
     b"250 x\r\n", b"250-x\r\n", b"250-STARTTLS\r\n", b"250 STARTTLS\r\n", b"250-mail.example.com\r\n",
     b"250 mail.example.com\r\n", b"250\r\n", b"250 OK\r\n", b"250-XCLIENT ADDR\r\n", b"250_HELP\r\n", b"421 x\r\n",
     b"221 x\r\n", b"454 x\r\n", b"550 x\r\n", b"550-x\r\n", b"STARTTLS", b"\r\n", b"\n", b"\r", b"\0", b"25", b"0 ",
     b"220", b" ", b"x" * 5000, b"250-" + b"x" * 17000, b"\x16\x03\x01"]
)  # fmt: skip
BYTES = st.lists(TOKENS | st.binary(max_size=5), max_size=8).map(b"".join)
EVENTS: st.SearchStrategy[Event] = st.one_of(
    st.builds(Client, BYTES),
    st.builds(Server, BYTES),
    st.builds(Client, BYTES),
    st.builds(Server, BYTES),
    st.builds(Connected, another_left=st.booleans()),
    st.builds(Wait, st.sampled_from([0.0, 0.1, 0.2, 15.0, 30.0, 61.0, 300.0, 600.0])),
    st.builds(ClientEnds, st.booleans()),
    st.builds(ServerEnds, st.booleans()),
    st.just(Drain()),
    st.just(ServerTlsReady()),
    st.just(ServerTlsFailed()),
    st.just(ClientTlsReady()),
    st.just(ClientTlsFailed()),
    st.just(Unreachable()),
)
SIDES = st.sampled_from(["starttls", "implicit", "none"])
POLICIES = st.builds(
    SessionPolicy,
    repair=st.builds(
        RepairPolicy,
        mode=st.sampled_from(["repair", "observe", "off"]),
        strict=st.booleans(),
        greeting=st.just(b""),
        remove=st.just(()),
        add=st.just(()),
    ),
    xclient=st.booleans(),
    bridge=st.none() | st.builds(BridgePolicy, SIDES, SIDES, st.booleans()),
)
SEEN_AT = st.sampled_from([None, 1000.0, -5000.0])
MEMORIES = st.builds(DestinationMemory, SEEN_AT, SEEN_AT)


@settings(max_examples=250)
@given(st.lists(EVENTS, max_size=25), POLICIES, MEMORIES, st.booleans())
def test_nothing_that_happens_is_an_exception_or_breaks_a_bound(
    events: list[Event], policy: SessionPolicy, memory: DestinationMemory, trusted: bool
) -> None:
    play = player(policy, trusted=trusted, memory=memory)
    for event in [Connected(), *events]:
        play.happens(event)  # sees to the bounds, too
        assert len(play.session.talk.owed) <= MAX_OWED
        assert not (play.session.phase is Phase.ENDED and play.session.talk.owed)
    assert DestinationMemory() == NOTHING_LEARNT, "what one session learns without a server, others would know"


@settings(max_examples=150)
@given(st.lists(EVENTS, max_size=25), POLICIES, st.booleans())
def test_where_tls_is_required_no_mail_reaches_the_server_in_clear(
    events: list[Event], policy: SessionPolicy, trusted: bool
) -> None:
    for client, server in (
        ("starttls", "starttls"),
        ("starttls", "implicit"),
        ("none", "starttls"),
        ("implicit", "starttls"),
    ):
        play = player(SessionPolicy(repair=policy.repair, bridge=BridgePolicy(client, server)), trusted=trusted)
        session = play.session
        for event in [Connected(), *events]:
            secure = session.client.tls if client == "starttls" else session.server.tls
            actions = play.happens(event)
            secure = secure or (session.client.tls if client == "starttls" else session.server.tls)
            if not secure:
                assert b"MAIL" not in to_server(actions)
                assert b"AUTH" not in to_server(actions)
                assert ReleaseClient() not in actions


CLEAR = st.builds(
    SessionPolicy,
    repair=st.builds(
        RepairPolicy,
        mode=st.sampled_from(["repair", "observe", "off"]),
        strict=st.just(False),
        greeting=st.just(b""),
        remove=st.just(()),
        add=st.just(()),
    ),
    xclient=st.just(False),
)
PEERS: st.SearchStrategy[Event] = st.one_of(
    st.builds(Client, BYTES), st.builds(Server, BYTES), st.builds(Wait, st.sampled_from([0.0, 0.1, 0.2, 15.0, 61.0]))
)


@settings(max_examples=150)
@given(st.lists(PEERS, max_size=25), CLEAR)
def test_the_server_hears_what_the_client_said_and_nothing_else(events: list[Event], policy: SessionPolicy) -> None:
    play = player(policy)
    heard, said = b"", b""
    for event in [Connected(), *events]:
        if isinstance(event, Client):
            said += event.data
        heard += to_server(play.happens(event))
        assert said.startswith(heard)
    if not play.ended:
        assert said[len(heard) :] == play.session.client.lines.take_pending()


@settings(max_examples=150)
@given(st.lists(PEERS, max_size=25), st.sampled_from(["observe", "off"]))
def test_where_nothing_is_changed_the_client_hears_what_the_server_said_and_a_last_word_at_most(
    events: list[Event], mode: str
) -> None:
    play = player(SessionPolicy(repair=RepairPolicy(mode=mode)))
    heard, said = b"", b""
    for event in [Connected(), *events]:
        if isinstance(event, Server) and not play.ended:
            said += event.data
        heard += to_client(play.happens(event))
        if play.ended:
            break
        assert said.startswith(heard)
    session = play.session
    if play.ended:
        common = next(
            (at for at, (a, b) in enumerate(zip(heard, said, strict=False)) if a != b), min(len(heard), len(said))
        )
        assert heard[common:] == b"" or heard[: common + 400].count(b"421 4.")
    else:
        assert said[len(heard) :] == session.answers.held.take() + session.answers.lines.take_pending()


@settings(max_examples=150)
@given(st.lists(PEERS, max_size=12), CUTS)
def test_the_actions_do_not_depend_on_how_either_stream_is_cut(events: list[Event], cuts: list[int]) -> None:
    """Of anything, where no EHLO reply is made of what stands there in one turn (mode `off`); of all that is whole, the
    exchanges above and the corpus show it for mode `repair` as well."""
    policy = SessionPolicy(repair=RepairPolicy(mode="off"))
    whole, pieces = player(policy), player(policy)
    one: list[Action] = []
    many: list[Action] = []
    for event in [Connected(), *events]:
        one += whole.happens(event)
        if isinstance(event, Client | Server):
            for piece in cut(event.data, cuts):
                many += pieces.happens(type(event)(piece))
        else:
            many += pieces.happens(event)
    if any(isinstance(action, End) for action in one + many):
        return  # an injection is what is there when the segment ends
    assert to_server(one) == to_server(many)
    assert to_client(one) == to_client(many)
    assert points(one) == points(many)
