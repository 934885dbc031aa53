"""The end of a ``with`` block closes: one way to say so for everything that holds files open."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Closing(ABC):
    """Is closed at the end of its ``with`` block, whatever happened in it."""

    @abstractmethod
    def close(self) -> None:
        """Close what is held open; closing twice does nothing."""

    def __enter__(self) -> Self:
        """Return the object itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close, whatever happened."""
        self.close()
