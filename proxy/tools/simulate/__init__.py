"""A broken destination server, for a lab and for the test-suites of mail programs.

`command` puts it together for `ehlo-proxy simulate`; `server` and `session` speak, `replies` and `faults` have what is
said and done wrongly, `incoming` takes messages, `weak` is about TLS, `transcript` makes a vendor's server of what
`[route.record]` wrote.  None of them knows the proxy beyond the catalogue of findings.

A test-suite in any Python program gets every broken server in two lines, each in a process of its own:

    from proxy.tools.simulate import simulated_server

    with simulated_server(fault="hello-too-large") as server:
        my_client.send("127.0.0.1", server.port)
        assert server.wait_for_mail().data == b"..."

or, with pytest, as a fixture that starts as many as a test asks for and ends them behind it:

    pytest_plugins = ["proxy.tools.simulate.plugin"]

    def test_the_greeting_may_be_anywhere(simulated_server):
        server = simulated_server("greeting-not-first")
"""

from proxy.tools.simulate.running import ReceivedMail, RunningServer, simulated_server

__all__ = ["ReceivedMail", "RunningServer", "simulated_server"]
