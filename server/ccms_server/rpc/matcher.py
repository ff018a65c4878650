"""Matchers of series, from their protobuf message."""

from ccms.v1.sample_pb2 import SeriesMatcher as SeriesMatcherMessage
from ccms_server.matcher import SeriesMatcher


def read_matcher(message: SeriesMatcherMessage) -> SeriesMatcher:
    """The matcher that a message stands for; an empty one selects all series.

    Raises:
        InvalidRequestError: A pattern is empty where every series has a name.
        LimitExceededError: There are too many patterns, or they are too long.
    """
    return SeriesMatcher.compile(
        clusters=message.clusters,
        hosts=message.hosts,
        components=message.components,
        subcomponents=message.subcomponents,
        metrics=message.metrics,
    )
