"""What the listener shows and whom it believes. PS3.15 B.12 (BCP 195, RFC 9325). Knows no association."""

from __future__ import annotations

import ssl

from cxr_node.config import Tls
from cxr_node.errors import ConfigError

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2: forward secrecy and authenticated encryption; all of TLS 1.3 have both."""


def server_tls(tls: Tls) -> ssl.SSLContext:
    """TLS 1.2 or newer with forward secrecy and a client certificate of our CA (BCP 195, PS3.15 B.12).

    Raises
    ------
    ConfigError : a certificate or key cannot be used, or others may read the key.
    """
    tls = tls.located()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.set_ciphers(CIPHERS)
        context.load_verify_locations(tls.ca)
        context.load_cert_chain(tls.certificate, tls.key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"listen.tls: {tls.certificate}, {tls.key}, {tls.ca}: {error}") from error
    return context
