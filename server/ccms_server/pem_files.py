"""Certificates, keys and authorities in PEM files: reading them, and saying what is wrong with them."""

import ssl
from pathlib import Path
from typing import Final

from ccms_server.errors import ConfigError, reason_of

FILE_BYTES_MAX: Final = 1 << 20
"""Largest file that is read; all authorities of a system take a quarter of it."""

FileState = tuple[int, ...] | None
"""What changes when a file is replaced, written or made readable; None: there is no file."""


def file_state(path: str) -> FileState:
    """The state of a file; an empty path stands for none."""
    try:
        found = Path(path).stat() if path else None
    except OSError:
        return None
    return found and (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def read_file(key: str, path: str) -> bytes:
    """The content of a file.

    Args:
        key: What the configuration calls the file.
        path: The file.

    Raises:
        ConfigError: It cannot be read, or is too large.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(key, path, f"cannot be read: {error.strerror}") from None
    if len(content) > FILE_BYTES_MAX:
        raise ConfigError(key, path, f"is larger than {FILE_BYTES_MAX:,} bytes")
    return content


def check_private_key(key: str, path: str, content: bytes) -> None:
    """Finds out whether a file holds a private key that nobody has to unlock.

    Raises:
        ConfigError: It does not.
    """
    if b"PRIVATE KEY-----" not in content:
        raise ConfigError(key, path, "must hold a private key in PEM form")
    if b"ENCRYPTED" in content:
        raise ConfigError(key, path, "must hold a key without a passphrase: nobody is there to enter it")


def load_pair(context: ssl.SSLContext, cert_file: str, key: str, key_file: str) -> None:
    """Lets a context show a certificate.

    Args:
        context: The context.
        cert_file: PEM file of the certificate.
        key: What the configuration calls the file of its key.
        key_file: PEM file of its key.

    Raises:
        ConfigError: The two do not fit.
    """
    try:
        context.load_cert_chain(cert_file, key_file, password="")
    except OSError as error:
        rule = f"is not the key of the certificate in {cert_file}, or cannot be used: {_tls_reason(error)}"
        raise ConfigError(key, key_file, rule) from None


def load_authorities(context: ssl.SSLContext, key: str, path: str) -> None:
    """Lets a context check others against the authorities in a file.

    Raises:
        ConfigError: It holds none.
    """
    read_file(key, path)
    try:
        context.load_verify_locations(path)
    except OSError as error:
        raise ConfigError(key, path, f"must hold certificates in PEM form: {_tls_reason(error)}") from None


def _tls_reason(error: OSError) -> str:
    """The library's words without its file and line numbers."""
    return (error.reason if isinstance(error, ssl.SSLError) else None) or reason_of(error)
