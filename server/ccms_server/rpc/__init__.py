"""The gRPC front end: `ccms.v1`, health and reflection."""
