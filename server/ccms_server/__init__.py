"""The metric store: data, ingest, gRPC services, and the process around them."""

from importlib.metadata import version

__version__ = version("cc-metric-store")
