"""Every kind of session once; and, long, all of them mixed for an hour (EHLO_SOAK_MINUTES for another time)."""

from __future__ import annotations

import os
import random
import ssl
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.certificates import make
from tests.soak.parties import misdeeds
from tests.soak.run import MAX_PIPES, run, started
from tests.soak.sessions import BROKEN, GOOD, HOSTILE


def test_every_kind_of_session_goes_as_it_should_and_leaves_nothing_behind(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    paths = make("good").write(tmp_path)
    context.load_cert_chain(paths.certificate, paths.key)
    # A server does each of its misdeeds once before it does one again.
    hostile = list(HOSTILE.items()) * len(misdeeds(context))
    sessions = [*GOOD.items(), *BROKEN.items(), *hostile]
    random.shuffle(sessions)
    with started() as soak:
        base = soak.settle()
        with ThreadPoolExecutor(len(sessions)) as pool:
            list(pool.map(lambda each: soak.one(*each), sessions))
        after = soak.settle()
        taken = soak.parties.count()
        assert soak.tally.failures == []
        assert soak.noise == []
        assert taken == {"mails": soak.tally.mails, "failures": []}
        assert sum(soak.outcomes.values()) >= len(sessions) - 20  # but those that never became a session
        assert after.descriptors == base.descriptors
        assert after.pipes <= base.pipes + MAX_PIPES
        assert after.memory - base.memory < 16 << 20
        for held in soak.held:
            assert held.say(b"NOOP")[:3] == b"250"


@pytest.mark.long
@pytest.mark.alone
def test_memory_and_descriptors_do_not_grow() -> None:
    verdict = run(float(os.environ.get("EHLO_SOAK_MINUTES", "60")))
    print(verdict)
    assert not verdict.wrong
