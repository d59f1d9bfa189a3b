"""What can be measured of a server, for Prometheus."""

from rbee.metrics.metrics import Metrics, TokenMeter

__all__ = ["Metrics", "TokenMeter"]
