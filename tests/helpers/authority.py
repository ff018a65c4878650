"""A certificate authority, and the files a server is given."""

import ssl
from datetime import UTC, datetime, timedelta

import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from ccms_client import Tls


class Authority:
    """Issues certificates for servers on loopback, and for clients.

    Attributes:
        directory: Where its files lie: `cert.pem` and `key.pem` of the server, `ca.pem` of the authority.
    """

    def __init__(self, directory):
        self.directory = directory
        self._ca = trustme.CA()
        self.renew()
        self._ca.cert_pem.write_to_path(directory / "ca.pem")

    @property
    def http_api(self):
        """Keys of the configuration for a server with the certificate."""
        return {
            "address": "127.0.0.1:0",
            "https-cert-file": str(self.directory / "cert.pem"),
            "https-key-file": str(self.directory / "key.pem"),
        }

    @property
    def http_api_with_clients(self):
        """The same for one that wants certificates of its clients."""
        return {**self.http_api, "client-ca-file": str(self.directory / "ca.pem")}

    def renew(self, not_after=None):
        """Issues a new certificate for the server and puts it into its files; returns its serial number."""
        return self.put(self.issue(not_after))

    def issue(self, not_after=None, not_before=None):
        """A certificate for a server on loopback."""
        return self._ca.issue_cert(
            "localhost", "127.0.0.1", "::1", key_type=trustme.KeyType.ECDSA, not_after=not_after, not_before=not_before
        )

    def put(self, certificate):
        """Puts a certificate and its key into the files of the server; returns its serial number."""
        (self.directory / "cert.pem").write_bytes(chain(certificate))
        (self.directory / "key.pem").write_bytes(certificate.private_key_pem.bytes())
        return serial(chain(certificate))

    def context(self, client=None):
        """What a client needs to trust the server, and to show a certificate."""
        context = ssl.create_default_context()
        self._ca.configure_trust(context)
        if client is not None:
            client.configure_cert(context)
        return context

    def tls(self, client=None):
        """The same for `ccms_client`."""
        return Tls(
            root_certificates=self._ca.cert_pem.bytes(),
            certificate=chain(client) if client else None,
            key=client.private_key_pem.bytes() if client else None,
        )

    def client(self):
        """A certificate for a client."""
        return self._ca.issue_cert("collector@example.org", key_type=trustme.KeyType.ECDSA)


def chain(certificate):
    """A certificate and those that vouch for it, in PEM form."""
    return b"".join(blob.bytes() for blob in certificate.cert_chain_pems)


def serial(pem):
    """The serial number of the first certificate in a PEM file."""
    return int(x509.load_pem_x509_certificates(pem)[0].serial_number)


def self_signed(key):
    """A certificate that vouches for itself, in PEM form."""
    name, now = x509.Name([]), datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=90))
    algorithm = None if isinstance(key, Ed25519PrivateKey) else SHA256()
    return builder.sign(key, algorithm).public_bytes(Encoding.PEM)
