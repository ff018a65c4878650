"""The REST API of the predecessor, in front of a store in this process or elsewhere."""

from ccms_gateway.app import create_app
from ccms_gateway.backend import Backend
from ccms_gateway.dump_json import write_dump
from ccms_gateway.server import serving

__all__ = ["Backend", "create_app", "serving", "write_dump"]
