"""Steps of players that are on another device than torch's default."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from every_optimizer import Entry, each_kind
from games import QuadraticGame
from snapshots import all_params

import compopt


@contextmanager
def default_device(device: str) -> Iterator[None]:
    torch.set_default_device(device)
    try:
        yield
    finally:
        # Not the device that it was: setting any leaves a mode in place.
        torch.set_default_device(None)


def after_steps(entry: Entry, device: str) -> list[Any]:
    game, optimizer = entry.start()
    with default_device(device):
        for _ in range(3):
            entry.step(optimizer, game.loss)
    return [param.tolist() for param in all_params(optimizer)]


@each_kind
def test_a_step_does_not_depend_on_the_default_device(entry: Entry) -> None:
    assert after_steps(entry, "meta") == after_steps(entry, "cpu")


def test_diagnosis_does_not_depend_on_the_default_device() -> None:
    game = QuadraticGame()

    def loss() -> Any:
        return compopt.preflight(game.loss, game.min_params, game.max_params).loss

    with default_device("meta"):
        moved = loss()
        assert compopt.check_operator(game.loss(), game.min_params, game.max_params).ok
    assert moved == loss()
