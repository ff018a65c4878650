"""NATS servers and subscriptions: a list of both in the 2024 layout, one of each kind in that of release 1.5."""

import re
from typing import Final

from ccms_server.config.address import broken_nats_rule
from ccms_server.config.json_section import Section
from ccms_server.config.model import NatsConfig, NatsSubscription
from ccms_server.names import broken_name_rule

_SUBJECT: Final = re.compile(r"(>|([^\s.*>]+|\*)(\.([^\s.*>]+|\*))*(\.>)?)")


def read_nats(section: Section, subscriptions: tuple[NatsSubscription, ...]) -> NatsConfig:
    """Reads how to reach and to enter servers; what to subscribe to there is read already."""
    address = section.text("address", secret=True)
    if rule := broken_nats_rule(address):
        section.fail("address", None if "@" in address else address, rule)  # what is before it may be a password
    nats = NatsConfig(
        address=address,
        username=section.text("username", ""),
        password=section.text("password", "", secret=True),
        creds_file_path=section.text("creds-file-path", ""),
        tls_ca_file=section.text("tls-ca-file", ""),
        tls_cert_file=section.text("tls-cert-file", ""),
        tls_key_file=section.text("tls-key-file", ""),
        subscriptions=subscriptions,
    )
    section.require_together("username", "password")
    section.require_together("tls-cert-file", "tls-key-file")
    return nats


def read_subscriptions(section: Section, key: str) -> tuple[NatsSubscription, ...]:
    """Reads a list of subscriptions; an absent one is empty."""
    return tuple(_read_subscription(subscription) for subscription in section.list_of_sections(key))


def _read_subscription(section: Section) -> NatsSubscription:
    subject = section.text("subscribe-to")
    if not _SUBJECT.fullmatch(subject):
        section.fail(
            "subscribe-to", subject, "must be a subject: words joined by dots, `*` for any word, `>` for the rest"
        )
    cluster = section.text("cluster-tag", "")
    if cluster and (rule := broken_name_rule(cluster, is_directory=True)):
        section.fail("cluster-tag", cluster, rule)
    return NatsSubscription(subscribe_to=subject, cluster_tag=cluster)
