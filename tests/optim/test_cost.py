"""What a step costs: products, host reads, memory. Nothing here depends on the machine."""

import pytest
import torch
from cases import CASES
from covering import pairwise
from saved_tensors import counting_saved_tensors
from torch import nn

from compopt import ACGD, CGD, GMRES, ConjugateGradient, Game
from compopt.derivatives import differentiate
from compopt.kernels import _numbers

OPTIMIZERS = pytest.mark.parametrize("optimizer_class", [CGD, ACGD], ids=["cgd", "acgd"])


@pytest.fixture
def autograd_calls(monkeypatch):
    """Count the calls of torch.autograd.grad, split by whether they keep a graph."""
    calls = {"first order": 0, "product": 0}
    grad = torch.autograd.grad

    def counted(*args, **kwargs):
        calls["first order" if kwargs.get("create_graph") else "product"] += 1
        return grad(*args, **kwargs)

    def refuse(*args, **kwargs):
        raise AssertionError("backward() must not be called")

    monkeypatch.setattr(torch.autograd, "grad", counted)
    monkeypatch.setattr(torch.autograd, "backward", refuse)
    return calls


@pairwise(
    optimizer_class={"cgd": CGD, "acgd": ACGD},
    solve_for=["min", "max", "smaller", "alternate"],
    warm_start={"cold": False, "warm": True},
    check_last={"predicted": False, "computed": True},
)
def test_number_of_products(optimizer_class, solve_for, warm_start, check_last, autograd_calls):
    case = CASES["mlp-gan"]()
    optimizer = optimizer_class(
        case.min_params,
        case.max_params,
        lr=0.05,
        solver=ConjugateGradient(rtol=1e-6, max_iter=100, check_last=check_last),
        solve_for=solve_for,
        warm_start=warm_start,
    )
    iterations = set()
    for index in range(6):
        before = dict(autograd_calls)
        optimizer.step(case())
        report = optimizer.last_step
        # Alternation first meets each player without a move of its own only once, since a step
        # leaves both players' moves behind.
        started_warm = warm_start and index > 0
        expected = (2 if started_warm else 1) + 2 * report.num_iter
        expected -= 1 if report.residual_is_predicted else 0
        assert report.num_hvp == expected
        assert not (check_last and report.residual_is_predicted)
        assert autograd_calls["product"] - before["product"] == expected
        assert autograd_calls["first order"] - before["first order"] == 1
        iterations.add(report.num_iter)
    assert max(iterations) > 1


@pytest.mark.parametrize("check_last", [False, True], ids=["predicted", "computed"])
def test_the_last_residual_is_predicted_unless_it_is_asked_for(check_last, autograd_calls):
    case = CASES["mlp-gan"]()
    solver = ConjugateGradient(rtol=0.0, max_iter=2, check_last=check_last)
    optimizer = ACGD(case.min_params, case.max_params, solver=solver)
    optimizer.step(case())
    assert optimizer.last_step.residual_is_predicted == (not check_last)
    assert autograd_calls["product"] == optimizer.last_step.num_hvp == 4 + check_last


def test_a_penalty_costs_one_backward_pass_and_no_product(autograd_calls):
    case = CASES["mlp-gan"]()
    optimizer = ACGD(case.min_params, case.max_params, solver=ConjugateGradient(rtol=0, max_iter=1))
    with torch.enable_grad():
        penalty = torch.stack([(param**2).sum() for param in case.max_params]).sum()
    optimizer.step(case(), max_penalty=penalty)
    assert optimizer.last_step.num_hvp == 2
    # Two products and the penalty's own gradient, which needs no graph either.
    assert autograd_calls == {"first order": 1, "product": 3}


def test_beside_a_loss_for_the_curvature_the_loss_needs_no_graph(autograd_calls):
    case = CASES["mlp-gan"]()
    optimizer = ACGD(case.min_params, case.max_params, solver=ConjugateGradient(rtol=0, max_iter=1))
    optimizer.step(case(), curvature_loss=case())
    # The loss is differentiated without a graph, as products are; the other one with it.
    assert autograd_calls == {"first order": 1, "product": 1 + optimizer.last_step.num_hvp}


def networks(device):
    generator = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))
    critic = nn.Sequential(nn.Linear(4, 6), nn.LeakyReLU(), nn.Linear(6, 1))
    return generator.to(device), critic.to(device)


@OPTIMIZERS
@pytest.mark.parametrize("on_failure", ["fallback", "skip"])
@pytest.mark.parametrize("warm_start", [False, True], ids=["cold", "warm"])
def test_a_step_with_a_fixed_count_reads_no_value(optimizer_class, on_failure, warm_start):
    # On the meta device there are no values: reading one raises.
    generator, critic = networks("meta")
    optimizer = optimizer_class(
        generator.parameters(),
        critic.parameters(),
        lr=1e-3,
        weight_decay=0.1,
        max_grad_norm=1.0,
        solver=ConjugateGradient(rtol=0.0, max_iter=3),
        warm_start=warm_start,
        on_failure=on_failure,
        capturable=True,
    )
    z, real = torch.ones(5, 3, device="meta"), torch.ones(5, 4, device="meta")
    for _ in range(2):
        loss = optimizer.step(critic(real).mean() - critic(generator(z)).mean())
    assert loss.device.type == "meta"
    assert optimizer.last_step.num_iter == 3
    with pytest.raises((RuntimeError, NotImplementedError)):
        optimizer.last_step.relative_residual  # noqa: B018


@OPTIMIZERS
def test_a_capturable_run_is_an_ordinary_one(optimizer_class):
    runs = []
    for capturable in (False, True):
        case = CASES["mlp-gan"]()
        optimizer = optimizer_class(
            case.min_params,
            case.max_params,
            lr=0.01,
            solver=ConjugateGradient(rtol=0.0, max_iter=2),
            capturable=capturable,
        )
        for _ in range(5):
            optimizer.step(case())
        runs.append([param.detach() for param in (*case.min_params, *case.max_params)])
    for ordinary, capturable in zip(*runs, strict=True):
        torch.testing.assert_close(ordinary, capturable, rtol=1e-6, atol=1e-9)


@OPTIMIZERS
def test_no_graph_survives_a_step(optimizer_class):
    case = CASES["mlp-gan"]()
    optimizer = optimizer_class(case.min_params, case.max_params, warm_start=True)
    with counting_saved_tensors() as saved:
        for _ in range(200):
            returned = optimizer.step(case())
            assert not returned.requires_grad
            assert saved.alive() == 0
        optimizer.backward(case())
        assert saved.alive() > 0
        optimizer.step()
        assert saved.alive() == 0
        optimizer.backward(case())
        optimizer.zero_grad()
        assert saved.alive() == 0
    assert saved.total > 0


@OPTIMIZERS
def test_state_holds_no_graph_and_does_not_grow(optimizer_class):
    case = CASES["mlp-gan"]()
    optimizer = optimizer_class(case.min_params, case.max_params, warm_start=True)
    addresses = set()
    # The first step has no move of its own to start from, which takes a vector more.
    optimizer.step(case())
    for _ in range(5):
        optimizer.step(case())
        tensors = [
            (key, value) for state in optimizer.state.values() for key, value in state.items()
        ]
        assert not any(value.requires_grad for _, value in tensors)
        # Work vectors that are kept from step to step count as well.
        tensors += [(str(key), value) for key, value in optimizer._workspace.vectors.items()]
        addresses.add(tuple((key, value.data_ptr()) for key, value in tensors))
    # State stays where it is, as device graphs and memory need.
    assert len(addresses) == 1


def test_reports_are_read_only_when_asked_for(monkeypatch):
    # As on a device.
    monkeypatch.setattr(_numbers, "FREE_TO_READ", set())
    case = CASES["mlp-gan"]()
    optimizer = ACGD(case.min_params, case.max_params, solver=ConjugateGradient(rtol=1e-3))
    reads = []
    for name in ("item", "__bool__", "__float__", "__int__", "tolist"):
        original = getattr(torch.Tensor, name)

        def counted(self, *args, _name=name, _original=original):
            reads.append(_name)
            return _original(self, *args)

        monkeypatch.setattr(torch.Tensor, name, counted)
    optimizer.step(case())
    num_iter = optimizer.last_step.num_iter
    # One look before each iteration, one that ends the loop unless the last iteration was known to
    # be the last, then the outcome of the step.
    looks = num_iter if optimizer.last_step.residual_is_predicted else num_iter + 1
    assert reads == ["tolist"] * (looks + 1)


def test_a_warm_start_is_solved_more_tightly_unless_told_otherwise():
    case = CASES["mlp-gan"]()
    players = case.min_params, case.max_params
    loose = ConjugateGradient(rtol=0.3)
    for form, method in (
        (Game(case()), ConjugateGradient),
        (Game(case(), max_loss=-case()), GMRES),
    ):
        at = differentiate(form, case.players)
        assert CGD(*players)._solver_for(at) == method(rtol=1e-2)
        assert ACGD(*players)._solver_for(at) == method(rtol=0.3)
        assert ACGD(*players, warm_start=True)._solver_for(at) == method(rtol=1e-2)
        assert ACGD(*players, warm_start=True, solver=loose)._solver_for(at) is loose
