"""No test reaches the network; the guard itself is tried."""

import socket

import pytest


def test_other_machines_are_out_of_reach() -> None:
    with pytest.raises(AssertionError, match="reached for 192.0.2.1"), socket.socket() as line:
        line.connect(("192.0.2.1", 80))
    with pytest.raises(AssertionError, match="reached for example.org"):
        socket.create_connection(("example.org", 80), timeout=1)


def test_this_machine_is_within_reach() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as line:
        assert line.getpeername() == server.getsockname()
