"""Messages and services of the metric store, by version of the contract."""
