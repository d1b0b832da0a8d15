# SPDX-License-Identifier: Apache-2.0
"""Which address an aggregator publishes, and which settings it refuses."""

import pytest

from flb.config import ServerConfig
from flb.errors import ConfigError, FLBError, NotAllowedHere
from flb_aggregator.server import endpoint_uri

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("listen", "tls", "advertise", "uri"),
    [
        ("127.0.0.1:50051", True, None, "127.0.0.1:50051"),
        ("192.0.2.1:50051", True, None, "192.0.2.1:50051"),
        ("0.0.0.0:50051", True, "example.org:443", "example.org:443"),
        ("[::]:50051", True, "[2001:db8::1]:50051", "[2001:db8::1]:50051"),
        ("127.0.0.1:50051", False, None, "http://127.0.0.1:50051"),
        ("[::1]:50051", False, None, "http://[::1]:50051"),
        ("127.0.0.1:50051", False, "localhost:50052", "http://localhost:50052"),
        ("127.0.0.1:50051", False, "example.org:443", "example.org:443"),
    ],
)
def test_endpoint_uri__allowed__is_what_nodes_shall_call(
    listen: str, tls: bool, advertise: str | None, uri: str
) -> None:
    assert endpoint_uri(ServerConfig(listen=listen, tls=tls, advertise=advertise)) == uri


@pytest.mark.parametrize(
    ("listen", "tls", "advertise", "error", "words"),
    [
        ("0.0.0.0:50051", False, None, NotAllowedHere, "other machines can reach, and server.tls is false"),
        ("192.0.2.1:50051", False, "127.0.0.1:50051", NotAllowedHere, "server.tls is false"),
        ("0.0.0.0:50051", True, None, ConfigError, "set server.advertise"),
        ("127.0.0.1:50051", True, "[::]:50051", ConfigError, "no node can call"),
        ("127.0.0.1", True, None, ConfigError, "server.listen is '127.0.0.1'"),
        ("127.0.0.1:0", True, None, ConfigError, "server.listen"),
        ("127.0.0.1:65536", True, None, ConfigError, "server.listen"),
        ("127.0.0.1:50051", True, "example.org", ConfigError, "server.advertise is 'example.org'"),
    ],
)
def test_endpoint_uri__refused__is_one_sentence(
    listen: str, tls: bool, advertise: str | None, error: type[FLBError], words: str
) -> None:
    with pytest.raises(error, match=words):
        endpoint_uri(ServerConfig(listen=listen, tls=tls, advertise=advertise))
