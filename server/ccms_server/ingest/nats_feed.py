"""One subscription of the configuration, over all the connections it is made on."""

import re
from typing import Final

from nats.aio.subscription import Subscription

from ccms_server.config import NatsSubscription

_REFUSAL: Final = re.compile("permissions violation", re.IGNORECASE)


class Feed:
    """What comes in on a subject, and whether the broker permits it.

    Attributes:
        subject: What is subscribed to.
        cluster_tag: Cluster of lines that name none.
        handle: nats-py's subscription; None before the first connection.
        handing_over: Messages taken from it that wait for room in the writer's queue.
        refusals: Times the broker refused it.
        refused: Whether the broker did when it was last asked.
    """

    def __init__(self, subscription: NatsSubscription) -> None:
        """Makes a feed of a subscription that is not made yet."""
        self.subject = subscription.subscribe_to
        self.cluster_tag = subscription.cluster_tag
        self.handle: Subscription | None = None
        self.handing_over = 0
        self.refusals = 0
        self.refused = False
        # nats-py makes what a broker says lowercase.
        self._quoted = '"{}"'.format(self.subject.lower().replace("\\", "\\\\").replace('"', '\\"'))

    @property
    def waiting(self) -> int:
        """Messages that were received and not handed over yet."""
        return self.handing_over + (self.handle.pending_msgs if self.handle is not None else 0)

    def is_refused_by(self, error: Exception) -> bool:
        """Whether an error is the broker's refusal of this subscription."""
        return is_refusal(error) and self._quoted in str(error).lower()


def is_refusal(error: Exception) -> bool:
    """Whether a broker refuses something, and stays connected."""
    return _REFUSAL.search(str(error)) is not None
