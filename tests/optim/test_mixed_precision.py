"""The step in lower precision, against that in float64, by number."""

import json

import pytest
import torch

from benchmarks.precision import FORMS, RESULT, Trial, measure, table

# Largest relative errors of the players' moves: generator, critic. The solver stops at 1e-2, and
# another batch changes the moves by about 1.
LIMITS = {
    "float32": (1e-4, 1e-4),
    "bf16 autocast": (0.25, 0.15),
    "fp16 autocast and scaler": (0.08, 0.05),
    "bf16 parameters": (0.4, 0.25),
}


@pytest.fixture(scope="module")
def results():
    return measure(seeds=1)


@pytest.mark.parametrize("form", FORMS)
def test_error_of_the_move(results, form):
    errors = [results[form][player][0] for player in ("generator", "critic")]
    for error, limit in zip(errors, LIMITS[form], strict=True):
        assert 0 < error < limit, f"{form}: {errors}"


def test_fp16_has_more_digits_than_bf16(results):
    """Were the scaled products not unscaled, its moves would be far off."""
    fp16, bf16 = (results[form]["critic"][0] for form in FORMS[2:0:-1])
    assert fp16 < bf16 / 2


def test_table_has_a_row_for_each_form(results):
    assert [line.split("|")[1].strip() for line in table(results).splitlines()[2:]] == list(FORMS)


def test_stored_errors_are_within_the_limits():
    stored = json.loads(RESULT.read_text())["errors"]
    for form, limits in LIMITS.items():
        for player, limit in zip(("generator", "critic"), limits, strict=True):
            assert len(stored[form][player]) == 5
            assert max(stored[form][player]) < limit


@pytest.mark.parametrize("form", ["bf16", "fp16"])
def test_vectors_and_moments_stay_float32(form):
    import benchmarks.precision as precision

    trial = Trial(num_steps=0)
    trial.move(getattr(precision, form))
    for entry in trial.optimizer.state.values():
        assert entry["exp_avg_sq"].dtype == torch.float32
    report = trial.optimizer.last_step
    assert report.taken
    assert report._residual_norm.dtype == torch.float32
