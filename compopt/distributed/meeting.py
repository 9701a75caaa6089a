"""Messages by which processes check that they are about to do the same thing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias


class Act(IntEnum):
    """Kinds of exchanges between processes."""

    # Values that messages of other libraries are unlikely to begin with.
    STEP = 0x636F6D70_00000001
    BACKWARD = 0x636F6D70_00000002
    PREPARED_STEP = 0x636F6D70_00000003
    BATCH = 0x636F6D70_00000004
    SAMPLES = 0x636F6D70_00000005
    COPY = 0x636F6D70_00000006


_NAMES = {
    Act.STEP: "`step(loss)`, call {} of the optimizer",
    Act.BACKWARD: "`backward(loss)`, call {} of the optimizer",
    Act.PREPARED_STEP: "`step()` after `backward`, call {} of the optimizer",
    Act.BATCH: "`while_all_have`, batch {}",
    Act.SAMPLES: "`batch_weight`",
    Act.COPY: "`broadcast_parameters`",
}


@dataclass(frozen=True)
class Notice:
    """Announcement of what a process is about to do, sent as five integers.

    Attributes:
        act: kind of exchange.
        count: index of the exchange among those of its kind; must be equal on all processes.
        values: three numbers whose meaning depends on ``act``.
    """

    act: int
    count: int = 0
    values: tuple[int, int, int] = (0, 0, 0)

    def numbers(self) -> list[int]:
        """Return the five integers of the message."""
        return [int(self.act), self.count, *self.values]

    @classmethod
    def of(cls, numbers: Sequence[int]) -> "Notice":
        """Return the notice that has these :meth:`numbers`."""
        act, count, first, second, third = numbers
        return cls(act, count, (first, second, third))

    def agrees(self, other: "Notice") -> bool:
        """Return True if both processes are at the same exchange."""
        return self.act == other.act and self.count == other.count

    def __str__(self) -> str:
        if self.act not in _NAMES:
            return "an exchange that is not compopt's"
        return _NAMES[Act(self.act)].format(self.count)


@dataclass(frozen=True)
class Terms:
    """Properties that must be equal on all processes to share a step.

    Attributes:
        setup: hash of hyperparameters, settings and the set of trained parameters.
        parameters: hash of the parameters' bits; 0 if they are not compared.
        state: hash of the state's bits; 0 if they are not compared.
        describe: returns the contents of ``setup``, as texts by name.
    """

    setup: int
    parameters: int
    state: int
    describe: Callable[[], Mapping[str, str]]


MakeTerms: TypeAlias = Callable[[], Terms]


def difference(own: Mapping[str, str], other: Mapping[str, str], rank: int) -> str:
    """Return a description of the first difference between this process and ``rank``."""
    for name in own:
        if own[name] != other.get(name, own[name]):
            return f"{name}: {own[name]} here, {other[name]} on rank {rank}"
    return "what is trained or how it is stepped"


def pack(texts: Mapping[str, str], length: int) -> bytes:
    """Encode texts as ``length`` bytes, truncated or padded."""
    lines = "\n".join(f"{name}\t{text}" for name, text in texts.items())
    return lines.encode()[:length].ljust(length, b"\n")


def unpack(data: bytes) -> dict[str, str]:
    """Decode the result of :func:`pack`, without the last text if it was truncated."""
    lines = data.decode(errors="ignore").split("\n")
    whole = [line.partition("\t") for line in lines[:-1] if "\t" in line]
    return {name: text for name, _, text in whole}
