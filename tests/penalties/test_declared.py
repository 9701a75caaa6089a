"""What penalties say of themselves, measured."""

import pytest
import torch
from covering import one_each
from dense import assert_close, flat
from penalty_registry import SETTINGS, GanBatch, Setting, Sine, each_setting, player_of
from saved_tensors import counting_saved_tensors

from compopt import ACGD, ConjugateGradient, Game, penalties
from compopt.derivatives import differentiate
from compopt.penalties import CATALOGUE, mixed_block_norm, sign_in_loss

COUPLED = [setting for setting in SETTINGS if setting.couples]

ONE_OF_EACH = {type(setting.build()): setting for setting in SETTINGS}
each_class = pytest.mark.parametrize("setting", ONE_OF_EACH.values(), ids=str)


def own(batch: GanBatch, setting: Setting) -> tuple[list, list]:
    """Return the parameters of the term's player and of the other one."""
    both = batch.min_params, batch.max_params
    return both if player_of(setting.build()) == "min" else both[::-1]


def in_loss(batch: GanBatch, setting: Setting) -> torch.Tensor:
    penalty = setting.build()
    return batch.loss() + sign_in_loss(player_of(penalty)) * batch.term(penalty)


def test_every_penalty_has_a_setting():
    assert {type(setting.build()) for setting in SETTINGS} == set(CATALOGUE.values())


@each_setting
def test_coupling_is_as_declared(setting):
    batch = GanBatch()
    penalty = setting.build()
    norm = mixed_block_norm(batch.term(penalty), batch.min_params, batch.max_params)
    assert penalty.couples == setting.couples
    assert (norm > 1e-6) if penalty.couples else (norm == 0.0)


@each_setting
def test_order_is_as_declared(setting):
    batch = GanBatch()
    penalty = setting.build()
    inputs = batch.inputs()
    Sine.evaluated = []
    term = penalty.on(**inputs)
    torch.autograd.grad(term, own(batch, setting)[0], allow_unused=True)
    used = max(Sine.evaluated, default=0)
    assert penalty.order == setting.order == used


@each_class
def test_value_is_positive_and_repeats_with_its_generator(setting):
    batch = GanBatch()
    first, second = (batch.term(setting.build()).detach() for _ in range(2))
    assert first.shape == ()
    assert first > 0
    assert torch.equal(first, second)


def test_the_global_generator_is_left_alone():
    for setting in ONE_OF_EACH.values():
        batch = GanBatch()
        before = torch.random.get_rng_state()
        batch.term(setting.build())
        assert torch.equal(torch.random.get_rng_state(), before), setting


@each_class
def test_the_sign_makes_its_player_lower_it(setting):
    """In the loss, with its sign, a term changes its player's gradient as a penalty does."""
    batch = GanBatch()
    penalty = setting.build()
    player = player_of(penalty)
    params = {"min": batch.min_params, "max": batch.max_params}
    beside = differentiate(Game(batch.loss(), **{f"{player}_penalty": batch.term(penalty)}), params)
    inside = differentiate(Game(in_loss(batch, setting)), params)
    grads = [derivatives.grads[player] for derivatives in (beside, inside)]
    assert_close(grads[1], grads[0], 1e-10)
    plain = differentiate(Game(batch.loss()), params)
    assert (grads[0] - plain.grads[player]).norm() > 1e-8


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_the_mixed_product_changes_where_declared(setting):
    batch = GanBatch()
    params = {"min": batch.min_params, "max": batch.max_params}
    plain = differentiate(Game(batch.loss()), params)
    with_term = differentiate(Game(in_loss(batch, setting)), params)
    v = torch.randn(plain.layouts["max"].numel, dtype=torch.float64)
    products = [mixed.mixed_product("min", v) for mixed in (plain, with_term)]
    if setting.couples:
        assert (products[0] - products[1]).norm() > 1e-6
    else:
        assert_close(products[1], products[0], 1e-12)


def acgd_run(setting: Setting, route: str, num_steps: int = 3) -> tuple[torch.Tensor, dict]:
    """Return both players' weights after steps, and what the last one cost."""
    batch = GanBatch()
    penalty = setting.build()
    player = player_of(penalty)
    optimizer = ACGD(
        batch.min_params,
        batch.max_params,
        lr=0.02,
        solver=ConjugateGradient(rtol=1e-12, max_iter=300),
    )
    for _ in range(num_steps):
        with counting_saved_tensors() as saved:
            if route == "penalty":
                optimizer.step(batch.loss(), **{f"{player}_penalty": batch.term(penalty)})
            else:
                optimizer.step(in_loss(batch, setting))
    cost = {"saved": saved.total, "hvp": optimizer.last_step.num_hvp}
    return flat([*batch.min_params, *batch.max_params]), cost


@pytest.mark.parametrize("setting", [s for s in ONE_OF_EACH.values() if not s.couples], ids=str)
def test_both_routes_give_the_same_acgd_step(setting):
    beside, cost_beside = acgd_run(setting, "penalty")
    inside, cost_inside = acgd_run(setting, "loss")
    assert_close(inside, beside, 1e-9)
    assert cost_beside["hvp"] == cost_inside["hvp"]
    # Differentiated once, a term keeps no graph of its gradient.
    assert cost_beside["saved"] < cost_inside["saved"]


def test_a_coupled_term_is_another_game_by_each_route():
    (setting,) = (s for s in COUPLED if s.name == "r2-attached")
    beside, inside = (acgd_run(setting, route)[0] for route in ("penalty", "loss"))
    assert (beside - inside).norm() > 1e-6


class TestMixedBlockNorm:
    def test_is_the_frobenius_norm(self):
        a = torch.randn(4, 3, dtype=torch.float64)
        x = torch.randn(4, dtype=torch.float64, requires_grad=True)
        y = torch.randn(3, dtype=torch.float64, requires_grad=True)
        generator = torch.Generator().manual_seed(0)
        term = x @ a @ y + (x**3).sum()
        # The spread of |D v|^2 is at most sqrt(2) times its mean: four standard errors.
        norm = mixed_block_norm(term, [x], [y], num_probes=4000, generator=generator)
        assert norm**2 == pytest.approx(float(a.square().sum()), rel=4 * (2 / 4000) ** 0.5)

    def test_a_term_of_one_player_is_uncoupled(self):
        x, y = torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)
        assert mixed_block_norm((x**3).sum(), [x], [y]) == 0.0
        assert mixed_block_norm((y**3).sum(), [x], [y]) == 0.0
        assert mixed_block_norm((x**3).sum() - (y**3).sum(), [x], [y]) == 0.0
        assert mixed_block_norm((x**3).sum() * (y**3).sum(), [x], [y]) > 1

    def test_bad_input(self):
        x, y = torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)
        with pytest.raises(ValueError, match="`term` must be a real scalar"):
            mixed_block_norm(x, [x], [y])
        with pytest.raises(ValueError, match="requires grad"):
            mixed_block_norm(torch.tensor(1.0), [x], [y])
        with pytest.raises(ValueError, match="`min_params` is empty"):
            mixed_block_norm(x.sum(), [], [y])
        with pytest.raises(ValueError, match="`num_probes` must be at least 1"):
            mixed_block_norm(x.sum(), [x], [y], num_probes=0)


class TestCatalogue:
    def test_builds_by_name(self):
        assert penalties.penalty("wgan-gp", coefficient=3.0) == penalties.WganGP(3.0)

    def test_names_what_is_wrong(self):
        with pytest.raises(ValueError, match="must be one of 'diversity', 'spectral'"):
            penalties.penalty("dropout")
        with pytest.raises(TypeError, match=r"options of 'r1' are not valid.*weight"):
            penalties.penalty("r1", weight=3.0)
        with pytest.raises(TypeError, match="R1 must be given `critic`, `real`"):
            penalties.R1().on(fake=torch.ones(2, 2))

    def test_a_misspelt_input_is_refused(self):
        critic = torch.nn.Linear(2, 1)
        with pytest.raises(TypeError, match=r"No penalty takes `raal`\. Did you mean `real`\?"):
            penalties.R1().on(critic=critic, real=torch.ones(2, 2), raal=None)
        with pytest.raises(TypeError, match=r"No penalty takes `q`\. Penalties take \['"):
            penalties.R1().on(critic=critic, real=torch.ones(2, 2), q=None)

    def test_says_what_a_user_must_know(self):
        for cls in CATALOGUE.values():
            for word in ("For: ", "Sign: ", "Couples: ", "Order: ", "Cost: ", "Attributes:"):
                assert word in " ".join(cls.__doc__.split()), (cls, word)

    @pytest.mark.parametrize(("cls", "value"), one_each(CATALOGUE, [-1.0, float("nan"), "much"]))
    def test_checks_its_coefficient_when_made(self, cls, value):
        with pytest.raises((ValueError, TypeError), match="`coefficient` must be"):
            cls(coefficient=value)
