"""The optimizers whose step cost is compared, behind one interface."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor
from torch.profiler import record_function

from benchmarks.workloads import Play
from compopt import ACGD, ConjugateGradient
from compopt._profiling import Range
from compopt.optim.rivals import ExtraAdam

LossFn = Callable[..., Tensor]
"""Returns the loss of the batch, or of the share of it that is given."""
Step = Callable[[LossFn], None]


@dataclass(frozen=True)
class Contestant:
    """An optimizer under test.

    Attributes:
        name: its name in tables.
        build: from a game and a learning rate, returns a function that takes one step on a loss.
        is_acgd: whether it takes ACGD's step with the published constants, so that the step can be
            compared with the exact one.
        package: the package that it comes from.
        needs_device: whether it runs only on a CUDA device.
    """

    name: str
    build: Callable[[Play, float], Step]
    is_acgd: bool = field(default=False, kw_only=True)
    package: str = field(default="compopt", kw_only=True)
    needs_device: bool = field(default=False, kw_only=True)


def _adam(play: Play, lr: float | Tensor, **options: bool) -> Step:
    players = (
        torch.optim.Adam(play.min_player.parameters(), lr=lr, **options),
        torch.optim.Adam(play.max_player.parameters(), lr=lr, maximize=True, **options),
    )

    def step(loss_fn: LossFn) -> None:
        for player in players:
            player.zero_grad()
        loss = loss_fn()
        # The package's own range name, for profiles.
        with record_function(Range.GRADIENTS.value):
            loss.backward()
        for player in players:
            player.step()

    return step


def _extra_adam(play: Play, lr: float) -> Step:
    optimizer = ExtraAdam(play.min_player.parameters(), play.max_player.parameters(), lr=lr)
    return lambda loss_fn: optimizer.step(loss_fn)


def acgd(**options: object) -> Callable[[Play, float | Tensor], Step]:
    def build(play: Play, lr: float | Tensor) -> Step:
        players = play.min_player.parameters(), play.max_player.parameters()
        optimizer = ACGD(*players, lr=lr, **options)
        return lambda loss_fn: optimizer.step(loss_fn)

    return build


def captured(build: Callable[[Play, Tensor], Step]) -> Callable[[Play, float], Step]:
    """Return a contestant that replays its step as a device graph after warm-up.

    The loss must read its batch from the memory of the first step. Without a CUDA device the step
    runs eagerly.
    """

    def build_captured(play: Play, lr: float) -> Step:
        device = next(play.min_player.parameters()).device
        step = build(play, torch.tensor(lr, device=device))
        if device.type != "cuda":
            return step
        return Replayed(step, device)

    return build_captured


class Replayed:
    """A step that is captured after a few eager steps, then replayed."""

    WARM_UP = 3

    def __init__(self, step: Step, device: torch.device) -> None:
        self._step = step
        self._graph: torch.cuda.CUDAGraph | None = None
        self._stream = torch.cuda.Stream(device)
        self._num_steps = 0

    def __call__(self, loss_fn: LossFn) -> None:
        """Take one step."""
        self._num_steps += 1
        if self._num_steps <= self.WARM_UP:
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                self._step(loss_fn)
            torch.cuda.current_stream().wait_stream(self._stream)
            return
        if self._graph is None:
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._step(loss_fn)
        self._graph.replay()


_TWO = ConjugateGradient(rtol=0.0, max_iter=2)


def _acgd_with_part(play: Play, lr: float) -> Step:
    optimizer = ACGD(play.min_player.parameters(), play.max_player.parameters(), lr=lr)
    return lambda loss_fn: optimizer.step(loss_fn(), curvature_loss=loss_fn(0.25))


def _cgds(play: Play, lr: float) -> Step:
    import CGDs

    optimizer = CGDs.ACGD(
        max_params=play.max_player.parameters(),
        min_params=play.min_player.parameters(),
        lr_max=lr,
        lr_min=lr,
    )

    def step(loss_fn: LossFn) -> None:
        optimizer.zero_grad()
        optimizer.step(loss_fn())

    return step


def _torch_cgd(play: Play, lr: float) -> Step:
    import torch_cgd

    # Its default solver, GMRES, does not reach its tolerance in float32: it takes 1000 iterations
    # and keeps a vector of the generator's size for each, 35 GB. Use its other solver at the
    # published tolerance, which that package applies to squared norms.
    solver = torch_cgd.solvers.CG(tol=1e-12)
    players = play.min_player.parameters(), play.max_player.parameters()
    optimizer = torch_cgd.ACGD(*players, lr=lr, solver=solver)

    def step(loss_fn: LossFn) -> None:
        optimizer.zero_grad()
        optimizer.step(loss_fn())

    return step


CONTESTANTS = {
    "adam": Contestant("Adam, both players from one backward", _adam, package="torch"),
    "adam-fused": Contestant(
        "Adam, fused", partial(_adam, fused=True), package="torch", needs_device=True
    ),
    "adam-captured": Contestant(
        "Adam, captured",
        captured(partial(_adam, capturable=True)),
        package="torch",
        needs_device=True,
    ),
    "extra-adam": Contestant("compopt ExtraAdam", _extra_adam),
    "compopt": Contestant("compopt ACGD", acgd(), is_acgd=True),
    "compopt-one": Contestant(
        "compopt ACGD, one iteration",
        acgd(solver=ConjugateGradient(rtol=0.0, max_iter=1)),
        is_acgd=True,
    ),
    "compopt-torch": Contestant(
        "compopt ACGD, backend torch", acgd(backend="torch"), is_acgd=True, needs_device=True
    ),
    "compopt-two": Contestant(
        "compopt ACGD, two iterations", acgd(solver=_TWO), is_acgd=True, needs_device=True
    ),
    "compopt-captured": Contestant(
        "compopt ACGD, two iterations, captured",
        captured(acgd(solver=_TWO, capturable=True)),
        is_acgd=True,
        needs_device=True,
    ),
    "compopt-part": Contestant(
        "compopt ACGD, curvature from a quarter", _acgd_with_part, is_acgd=True
    ),
    "compopt-tight": Contestant(
        "compopt ACGD, rtol=1e-6, cold",
        acgd(solver=ConjugateGradient(rtol=1e-6, max_iter=1000)),
        is_acgd=True,
    ),
    "cgds": Contestant("CGDs 0.4.5 ACGD", _cgds, is_acgd=True, package="CGDs"),
    "torch-cgd": Contestant("torch-cgd 0.0.2 ACGD, CG, tol=1e-12", _torch_cgd, package="torch-cgd"),
}


def contestants_on(device: torch.device) -> list[str]:
    """Return the keys of the contestants that can be measured on a device."""
    on_cuda = device.type == "cuda"
    return [key for key, one in CONTESTANTS.items() if on_cuda or not one.needs_device]


EXACT = acgd(solver=ConjugateGradient(rtol=1e-6, max_iter=1000, check_last=True))
"""The step that the others are measured against: as exact as float32 allows."""
