"""What processes tell each other before they act together, so that they act alike or not at all."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias


class Act(IntEnum):
    """What a process can be about to do with the others."""

    # Numbers that a message of somebody else's is not likely to begin with.
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
    """What a process is about to do. It travels as five integers.

    Attributes:
        act: the kind of exchange.
        count: which of its kind it is. All processes must be at the same one.
        values: three numbers about it.
    """

    act: int
    count: int = 0
    values: tuple[int, int, int] = (0, 0, 0)

    def numbers(self) -> list[int]:
        """Return what travels."""
        return [int(self.act), self.count, *self.values]

    @classmethod
    def of(cls, numbers: Sequence[int]) -> "Notice":
        """Return the notice with these :meth:`numbers`."""
        act, count, first, second, third = numbers
        return cls(act, count, (first, second, third))

    def agrees(self, other: "Notice") -> bool:
        """Return whether both processes can go on together."""
        return self.act == other.act and self.count == other.count

    def __str__(self) -> str:
        if self.act not in _NAMES:
            return "an exchange that is not compopt's"
        return _NAMES[Act(self.act)].format(self.count)


@dataclass(frozen=True)
class Terms:
    """What processes must have alike to share a step.

    Attributes:
        setup: stands for hyperparameters, settings, and what is trained.
        parameters: stands for the parameters' bits; 0 where they are not compared.
        state: for those of the state, likewise.
        describe: returns what ``setup`` stands for, as texts by name.
    """

    setup: int
    parameters: int
    state: int
    describe: Callable[[], Mapping[str, str]]


MakeTerms: TypeAlias = Callable[[], Terms]


def difference(own: Mapping[str, str], other: Mapping[str, str], rank: int) -> str:
    """Say what differs first between two descriptions, the other being that of ``rank``."""
    for name in own:
        if own[name] != other.get(name, own[name]):
            return f"{name}: {own[name]} here, {other[name]} on rank {rank}"
    return "what is trained or how it is stepped"


def pack(texts: Mapping[str, str], length: int) -> bytes:
    """Return texts as ``length`` bytes; what does not fit is left out."""
    lines = "\n".join(f"{name}\t{text}" for name, text in texts.items())
    return lines.encode()[:length].ljust(length, b"\n")


def unpack(data: bytes) -> dict[str, str]:
    """Return the texts of :func:`pack`, without the last one if it was cut."""
    lines = data.decode(errors="ignore").split("\n")
    whole = [line.partition("\t") for line in lines[:-1] if "\t" in line]
    return {name: text for name, _, text in whole}
