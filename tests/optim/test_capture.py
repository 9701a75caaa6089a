"""What a captured step would do wrong is seen without a device."""

import warnings
from functools import partial

import pytest
import torch
from games import NetworkGame
from torch.utils._python_dispatch import TorchDispatchMode

from compopt import ACGD, CGD, ConjugateGradient
from compopt.kernels.lists.tables import Place

FIXED = ConjugateGradient(rtol=0.0, max_iter=2)
FORMS = {
    "CGD": partial(CGD, lr=0.01),
    "ACGD": partial(ACGD, lr=0.01),
    "ACGD, tensor": partial(ACGD, lr=torch.tensor(0.01)),
    "ACGD, warm": partial(ACGD, lr=0.01, warm_start=True),
    "ACGD, strength": partial(ACGD, lr=0.01, warm_start=True, interaction=0.02),
    "ACGD, decay": partial(ACGD, lr=0.01, weight_decay=0.1, max_grad_norm=0.5),
    "CGD-box": partial(CGD, lr=0.01, mirror=("box", -20.0, 20.0)),
    "ACGD-box": partial(ACGD, lr=0.01, mirror=("box", -20.0, 20.0)),
}


class Transfers(TorchDispatchMode):
    """Counts tensors that are made of numbers of the host, and numbers that are read there."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket.__name__ in ("lift_fresh", "_local_scalar_dense")
        return func(*args, **(kwargs or {}))


def start(make, **options):
    game = NetworkGame(torch.float32)
    return game, make(game.min_params, game.max_params, capturable=True, solver=FIXED, **options)


@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize("make", FORMS.values(), ids=FORMS)
def test_a_capturable_step_sends_and_reads_nothing(make, backend):
    if backend == "triton":
        pytest.importorskip("triton")
    game, optimizer = start(make, backend=backend)
    for _ in range(2):
        optimizer.step(game.loss())
    loss = game.loss()
    with Transfers() as transfers:
        optimizer.step(loss)
    assert transfers.count == 0


@pytest.fixture
def capturing(monkeypatch):
    """Let launches be those of a capture."""
    monkeypatch.setattr(Place, "of", lambda vector: Place(vector.device, 7, True))


@pytest.mark.parametrize("name", ["CGD", "ACGD", "CGD-box"])
def test_a_capture_warns_of_learning_rates_that_it_keeps(name, capturing):
    game, optimizer = start(FORMS[name])
    words = r"keeps the present value of `lr`, 0\.01.*lr=torch\.tensor\(0\.01, "
    with pytest.warns(UserWarning, match=words):
        optimizer.step(game.loss())


def test_a_tensor_of_another_device_is_kept_as_well(capturing):
    game, optimizer = start(FORMS["ACGD"])
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(0.25).as_subclass(FarAway)
    with pytest.warns(UserWarning, match=r"keeps the present value of `lr`, 0\.25"):
        optimizer.step(game.loss())


class FarAway(torch.Tensor):
    """A number that says it is on another device."""

    device = torch.device("cuda")


def test_a_tensor_on_the_device_is_what_the_warning_asks_for(capturing):
    game, optimizer = start(FORMS["ACGD, tensor"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.step(game.loss())


def test_nothing_is_said_outside_of_a_capture():
    game, optimizer = start(FORMS["ACGD"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.step(game.loss())
