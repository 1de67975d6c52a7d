"""Where the page listens, and under which names it answers; no model is asked."""

import socket
import threading
import urllib.request

import pytest

from clip.inference.web import PAGE, Server


def test_only_a_foreign_name_could_lead_a_page_of_another_site_here():
    with Server(("0.0.0.0", 0), None) as server:
        assert server.open_to_others
        own = ("127.0.0.1", "192.168.0.7", "::1", "localhost", socket.gethostname())
        assert all(map(server.is_named, own))
        assert not server.is_named("evil.example")
        assert not server.is_named("")
    with Server(("127.0.0.1", 0), None) as server:
        assert not server.is_named("192.168.0.7")


def test_it_listens_at_an_address_of_version_6():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with Server(("::1", 0), None) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with urllib.request.urlopen(f"{server.url}page.js") as reply:
            assert reply.read() == (PAGE / "page.js").read_bytes()
        assert server.url.startswith("http://[::1]:")
        server.shutdown()
