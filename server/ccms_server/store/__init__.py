"""The store itself: synchronous numpy and numba, no I/O, no protocol, no clock of its own."""
