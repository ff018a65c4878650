"""What outlives the process: the WAL, blocks of sealed windows, the catalogue of series, recovery and the archive."""
