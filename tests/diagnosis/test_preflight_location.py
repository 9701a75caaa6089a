"""Which module an operation that fails is said to belong to, and which errors are not its."""

import contextlib
import dataclasses

import pytest
import torch
from preflight_games import WIDTH, Attention, Identity, Layer, overwrite, play, reentrant, trouble
from torch import Tensor, nn

from compopt.diagnosis import PreflightError, preflight


def test_failure_within_a_gradient_penalty_is_located():
    _, min_player, max_player = play(Attention())
    z = torch.randn(6, 2)

    def loss_fn() -> Tensor:
        fake = min_player(z)
        (slope,) = torch.autograd.grad(max_player(fake).sum(), fake, create_graph=True)
        return slope.square().sum()

    with pytest.raises(PreflightError, match=r"of max_player\.encoder\.1\.attn \(Multihead"):
        preflight(loss_fn, min_player, max_player)


def test_known_error_within_the_loss_function_is_explained():
    _, min_player, max_player = play(Layer(reentrant))
    z = torch.randn(6, 2)

    def loss_fn() -> Tensor:
        fake = min_player(z)
        return torch.autograd.grad(max_player(fake).sum(), fake, create_graph=True)[0].sum()

    with pytest.raises(PreflightError, match=r"The loss function failed.+use_reentrant=False"):
        preflight(loss_fn, min_player, max_player)


def test_other_errors_of_the_loss_function_pass_through():
    _, min_player, max_player = play(nn.Tanh())
    error = RuntimeError("the user's own")

    def loss_fn() -> Tensor:
        raise error

    with pytest.raises(RuntimeError) as raised:
        preflight(loss_fn, min_player, max_player)
    assert raised.value is error


def test_running_out_of_memory_is_not_blamed_on_derivatives():
    class Full(Identity):
        @staticmethod
        def backward(ctx, grad):
            raise torch.OutOfMemoryError("full")

    with pytest.raises(torch.OutOfMemoryError):
        preflight(*play(Layer(Full.apply)))


def test_operation_outside_of_modules_is_said_to_be_so():
    x, y = torch.randn(3, 2, requires_grad=True), torch.randn(3, 2, requires_grad=True)
    pattern = "`CdistBackward0` of the loss function, outside of named modules"
    with pytest.raises(PreflightError, match=pattern):
        preflight(lambda: torch.cdist(x, y, p=3.0).sum(), [x], [y])


@dataclasses.dataclass
class Features:
    """What a module may take and return in place of a tensor."""

    values: Tensor


class Fails(nn.Module):
    def forward(self, x):
        raise KeyError


class Outer(nn.Module):
    """Has an operation of its own between its submodules, which exchange it in a container."""

    def __init__(self, pack, unpack):
        super().__init__()
        self.fails = Fails()
        self.before = Layer(lambda x: pack(x + 1))
        self.after = Layer(lambda packed: unpack(packed).tanh())
        self.pack, self.unpack = pack, unpack

    def forward(self, x):
        with contextlib.suppress(KeyError):
            self.fails(x)
        h = self.unpack(self.before(x.exp()))
        return self.after(x=self.pack(torch.cdist(h, h[:WIDTH], p=3.0)))


@pytest.mark.parametrize(
    ("pack", "unpack"),
    [
        pytest.param(lambda x: x, lambda x: x, id="tensor"),
        pytest.param(lambda x: [x], lambda x: x[0], id="list"),
        pytest.param(lambda x: (None, {"a": x}), lambda x: x[1]["a"], id="mapping"),
        pytest.param(Features, lambda x: x.values, id="dataclass"),
    ],
)
def test_operation_belongs_to_the_innermost_module_that_runs_it(pack, unpack):
    assert "`CdistBackward0` of max_player.encoder.1 (Outer)" in trouble(Outer(pack, unpack))


def test_operation_after_a_module_belongs_to_the_enclosing_one():
    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(WIDTH, WIDTH)

        def forward(self, x):
            return overwrite(self.first(x))

    assert "of max_player.encoder.1 (Inner)" in trouble(Inner())
