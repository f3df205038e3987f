"""Names to addresses and mail exchanges, without ever keeping another session waiting.

/etc/hosts first, then the name servers of /etc/resolv.conf (`dns_query` asks them).  A name without a dot is looked for
in the search domains; an alias (CNAME) is followed.

* The last good answer is kept.  While it is fresh (its TTL, at most `MAX_FRESH`) nobody is asked.  When it is not, and
  no name server answers or all fail, it serves for at most `MAX_STALE` since it was got; a session waits for that no
  longer than `STALE_AFTER`, and within `RETRY_STALE` after such a failure not at all (RFC 8767 5).
* "No such name" and a null MX (RFC 7505) are answers: they replace the last good one at once.
* Sessions that want the same name share one question, and one that goes away takes nothing from the others.
* A and AAAA are asked at once; when one is there, the other has `RESOLUTION_DELAY` more (RFC 8305 3).

What an answer may contain is limited: names that are no host names are dropped; whether an address may be connected is
judged by `proxy.net.going_out.destination`.  Limits: `MAX_NAMES` answers are kept.

The cache is ours since twisted.names' forgets what has expired, and so could not serve it when the name servers are
down; getaddrinfo in threads could not be given up, and a dead name server would hold every thread.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed

from proxy.net.going_out.names.dns_answer import MAX_ALIASES, records_of
from proxy.net.going_out.names.dns_message import AAAA, MX, NO_ERROR, A, DnsAnswer
from proxy.net.going_out.names.dns_query import Query
from proxy.net.going_out.names.name_files import HOST_NAME, Hosts, ResolvConf
from proxy.net.going_out.names.wanted import Exchange, NotResolved

if TYPE_CHECKING:
    from proxy.net.waiting.deadlines import Deadlines
    from proxy.net.waiting.poller import Poller

MAX_FRESH = 3600.0  # seconds; leaves 23 hours of MAX_STALE for any TTL
MAX_STALE = 24 * 3600.0
STALE_AFTER = 1.8  # seconds; RFC 8767 5, the client response timer
RETRY_STALE = 30.0  # seconds; RFC 8767 5, the failure recheck timer
RESOLUTION_DELAY = 0.05  # seconds; RFC 8305 3
MAX_NAMES = 1000
DNS_PORT = 53

Record = str | Exchange


@dataclass(slots=True)
class Known:
    """The last good answer."""

    records: tuple[Record, ...]
    got_at: float
    fresh_until: float
    retry_at: float = 0.0  # not asked again before, after a failure


class Resolver:
    """One for a process; what `proxy.net.going_out.dialer` calls `Names`."""

    def __init__(
        self,
        poller: Poller,
        deadlines: Deadlines,
        servers: Sequence[tuple[str, int]] = (),
        hosts_file: str = "/etc/hosts",
        resolv_conf: str = "/etc/resolv.conf",
    ) -> None:
        """`servers` are asked in place of those of `resolv_conf`."""
        self._poller = poller
        self._deadlines = deadlines
        self._servers = tuple(servers)
        self._hosts = Hosts(hosts_file)
        self._resolv_conf = ResolvConf(resolv_conf)
        self._known: OrderedDict[tuple[str, int], Known] = OrderedDict()
        self._under_way: dict[tuple[str, int], _Question] = {}

    def addresses(self, name: str, timeout: float) -> Deferred[tuple[str, ...]]:
        """Every address of a host.  Fails with NotResolved within `timeout` seconds."""
        listed = self._hosts.addresses(name)
        if listed:
            return succeed(listed)
        return Deferred.fromCoroutine(self._addresses(name, self._deadlines.now() + timeout))

    def exchanges(self, domain: str, timeout: float) -> Deferred[tuple[Exchange, ...]]:
        """The MX records of a domain; itself where it has none.  Fails with NotResolved within `timeout` seconds."""
        return Deferred.fromCoroutine(self._exchanges(domain, timeout))

    def stop(self) -> None:
        """Forget every question; those who wait are not told."""
        for question in list(self._under_way.values()):
            question.cancel()
        self._under_way.clear()

    async def _addresses(self, name: str, ends_at: float) -> tuple[str, ...]:
        names = [name]
        if "." not in name:
            names = [f"{name}.{domain}" for domain in self._resolv_conf.search()] + names
        problem = NotResolved("no such name")
        for candidate in names:
            left = ends_at - self._deadlines.now()
            if left <= 0 or not HOST_NAME.match(candidate):
                continue
            try:
                return await _Pair(self, self._deadlines, candidate, left).found
            except NotResolved as error:
                problem = error
        raise problem

    async def _exchanges(self, domain: str, timeout: float) -> tuple[Exchange, ...]:
        if not HOST_NAME.match(domain):
            raise NotResolved("no such name")
        records = [record for record in await self.look_up(domain, MX, timeout) if isinstance(record, Exchange)]
        if not records:
            return (Exchange(0, domain),)  # RFC 5321 5.1: "an implicit MX"
        usable = tuple(record for record in records if record.name)
        if not usable:
            raise NotResolved("it accepts no mail (null MX)" if len(records) == 1 else "it has no usable mail exchange")
        return usable

    def look_up(self, name: str, kind: int, timeout: float) -> Deferred[tuple[Record, ...]]:
        """The records of a name, of one kind.  Fails with NotResolved within `timeout` seconds."""
        key = name.lower(), kind
        now = self._deadlines.now()
        known = self._known.get(key)
        if known is not None:
            if now < known.fresh_until or (now < known.retry_at and now - known.got_at < MAX_STALE):
                return succeed(known.records)
            if now - known.got_at >= MAX_STALE:
                del self._known[key]
                known = None
        question = self._under_way.get(key)
        if question is None:
            question = self._under_way[key] = _Question(self, name, kind)
            question.ask(name, timeout)
        return question.wait(now + (timeout if known is None else min(timeout, STALE_AFTER)))

    # What the questions need.

    def ask(self, name: str, kind: int, timeout: float, question: _Question) -> Query:
        """Put a question to the name servers."""
        servers = self._servers or [(server, DNS_PORT) for server in self._resolv_conf.servers()]
        return Query(name, kind, servers, self._poller, self._deadlines, timeout, question.answered)

    def learnt(self, question: _Question, records: tuple[Record, ...], ttl: float) -> None:
        """A good answer."""
        now = self._deadlines.now()
        self._known[question.key] = Known(records, now, now + min(ttl, MAX_FRESH))
        self._known.move_to_end(question.key)
        if len(self._known) > MAX_NAMES:
            self._known.popitem(last=False)

    def gone(self, question: _Question) -> None:
        """There is no such name."""
        self._known.pop(question.key, None)

    def stale(self, question: _Question) -> tuple[Record, ...] | None:
        """The last good answer for one who can't have a better one now."""
        known = self._known.get(question.key)
        now = self._deadlines.now()
        if known is None or now - known.got_at >= MAX_STALE:
            return None
        known.retry_at = max(known.retry_at, now + RETRY_STALE)
        return known.records

    def ended(self, question: _Question) -> None:
        if self._under_way.get(question.key) is question:
            del self._under_way[question.key]


class _Question:
    """One name and kind being asked for, and all who wait for it."""

    def __init__(self, resolver: Resolver, name: str, kind: int) -> None:
        self.resolver = resolver
        self.key = name.lower(), kind
        self.deadlines = resolver._deadlines
        self._name = name  # what is asked for now: the last alias
        self._kind = kind
        self._aliases = 0
        self._ttl = MAX_FRESH
        self._ends_at = 0.0
        self._query: Query | None = None
        self._waiting: dict[_Waiter, None] = {}

    def ask(self, name: str, timeout: float) -> None:
        self._name = name
        self._ends_at = self.deadlines.now() + timeout
        self._query = self.resolver.ask(name, self._kind, timeout, self)

    def wait(self, until: float) -> Deferred[tuple[Record, ...]]:
        waiter = _Waiter(self)
        self._waiting[waiter] = None
        self.deadlines.at(until, waiter)
        return waiter.found

    def leave(self, waiter: _Waiter) -> None:
        """It has its answer, or wants none any longer.  The question goes on: the answer is worth keeping."""
        self._waiting.pop(waiter, None)
        self.deadlines.cancel(waiter)

    def cancel(self) -> None:
        for waiter in list(self._waiting):
            self.leave(waiter)
        if self._query is not None:
            self._query.cancel()

    def answered(self, answer: DnsAnswer | None, reason: str) -> None:
        """The name servers have spoken."""
        if answer is None:
            stale = self.resolver.stale(self)
            self._give(stale, reason)
        elif answer.code != NO_ERROR:
            self.resolver.gone(self)
            self._give(None, "no such name")
        else:
            records, alias, ttl = records_of(answer, self._name, self._kind)
            self._ttl = min(self._ttl, ttl)
            left = self._ends_at - self.deadlines.now()
            if not records and alias.lower() != self._name.lower() and self._aliases < MAX_ALIASES and left > 0:
                self._aliases += 1
                self.ask(alias, left)
                return
            self.resolver.learnt(self, records, self._ttl)
            self._give(records, "")

    def _give(self, records: tuple[Record, ...] | None, reason: str) -> None:
        self.resolver.ended(self)
        for waiter in list(self._waiting):
            waiter.give(records, reason)


class _Waiter:
    """One who waits for a question, no longer than he wants to."""

    def __init__(self, question: _Question) -> None:
        self._question = question
        self.found: Deferred[tuple[Record, ...]] = Deferred(lambda _: question.leave(self))

    def give(self, records: tuple[Record, ...] | None, reason: str) -> None:
        self._question.leave(self)
        if records is not None:
            self.found.callback(records)
        else:
            self.found.errback(NotResolved(reason))

    def deadline_passed(self, now: float) -> None:
        self.give(self._question.resolver.stale(self._question), "no answer from the name server in time")


class _Pair:
    """The A and AAAA records of one name together."""

    def __init__(self, resolver: Resolver, deadlines: Deadlines, name: str, timeout: float) -> None:
        self._deadlines = deadlines
        self._problems: list[str] = []
        self._addresses: list[str] = []
        self._left = 2
        self.found: Deferred[tuple[str, ...]] = Deferred(self._cancel)
        self._lookups = [resolver.look_up(name, kind, timeout) for kind in (AAAA, A)]
        for lookup in self._lookups:
            lookup.addCallbacks(self._arrived, self._missing)

    def _arrived(self, records: tuple[Record, ...]) -> None:
        self._addresses += [record for record in records if isinstance(record, str)]
        self._one_less()

    def _missing(self, failure: Any) -> None:
        failure.trap(NotResolved)
        self._problems.append(str(failure.value))
        self._one_less()

    def _one_less(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._finish()
        elif self._addresses:
            self._deadlines.at(self._deadlines.now() + RESOLUTION_DELAY, self)

    def deadline_passed(self, now: float) -> None:
        self._finish()

    def _finish(self) -> None:
        self._deadlines.cancel(self)
        if self.found.called:
            return
        if self._addresses:
            self.found.callback(tuple(self._addresses))
        else:
            self.found.errback(NotResolved(self._problems[0] if self._problems else "it has no address"))

    def _cancel(self, found: Deferred[tuple[str, ...]]) -> None:
        self._deadlines.cancel(self)
        for lookup in self._lookups:
            lookup.addErrback(lambda failure: None)
            lookup.cancel()
