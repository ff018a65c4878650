"""From what senders send to samples of series: decoding, the write queue, and the NATS subscriber."""
