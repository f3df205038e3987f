"""Hosts, servers and proxies as for the tests over several hosts, and a sender that does not give up."""

from __future__ import annotations

import ssl

import pytest

from tests.hosts.broken_server import NAME
from tests.hosts.conftest import client_tls, namespaces, network, server_tls, start_proxy, start_server
from tests.hosts.network import Network
from tests.netfaults.mta import Mta

__all__ = ["client_tls", "namespaces", "network", "server_tls", "start_proxy", "start_server"]


@pytest.fixture
def mta(network: Network, client_tls: ssl.SSLContext) -> Mta:
    """On the client's host."""
    return Mta(network.client, client_tls, NAME)
