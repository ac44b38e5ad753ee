"""The clock as a door, the same for every room; the real one is made by the roof, a virtual one by the simulator."""

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """Two readings that never stand in for each other."""

    def now(self) -> datetime:
        """Aware UTC: for what people read and the store keeps."""
        ...

    def monotonic(self) -> float:
        """Seconds: for what is measured and waited for."""
        ...
