"""Protocols are what they say, and mistakes in them are named."""

import json
import re

import pytest

from benchmarks.cifar10.__main__ import main
from benchmarks.cifar10.choose import TUNED, choose
from benchmarks.cifar10.config import NetworkConfig, RunConfig, differences
from benchmarks.cifar10.errors import BenchmarkError
from benchmarks.cifar10.optimizers import OptimizerConfig
from benchmarks.cifar10.protocol import FOLDER, load_protocol, run_config
from benchmarks.cifar10.report.page import RESULTS
from benchmarks.cifar10.stored import load_results

NAMES = sorted(file.stem for file in FOLDER.glob("*.yaml"))


def test_there_are_these_protocols():
    assert NAMES == ["contrasts", "final", "paper", "smoke", "tuning"]


@pytest.mark.parametrize("name", NAMES)
def test_cells_differ_in_what_their_names_say_alone(name):
    protocol = load_protocol(name)
    cells = protocol.cells()
    assert len({cell.name for cell in cells}) == len(cells)
    shared = (
        "network",
        "steps",
        "budget",
        "batch_size",
        "threads",
        "device",
        "evaluation",
    )
    for key in shared:
        assert all(getattr(cell, key) == getattr(cells[0], key) for cell in cells)
    for cell in cells:
        if cell.choices:
            assert re.fullmatch(rf"{cell.method}_trial\d", cell.name)
        else:
            assert cell.name == f"{cell.method}_seed{cell.seed}"
            if name != "final":
                assert cell.optimizer == protocol.optimizers[cell.optimizer_name]
                assert cell.term == protocol.terms[cell.term_name]


def test_the_final_cells_have_the_options_of_the_best_stored_trial():
    stored = [trial for trial in load_results(RESULTS / "tuning") if trial.is_trial]
    for cell in load_protocol("final").cells():
        trials = [t for t in stored if t.method == cell.method.replace(TUNED, "")]
        best = min(trials, key=lambda trial: trial.endpoint(cell.evaluation.metrics[0])).run
        expected = run_config({"optimizer": best["optimizer"], "term": best["term"]})
        assert (cell.optimizer, cell.term) == (expected.optimizer, expected.term), cell.name


def test_contrasts_differ_in_the_interaction_alone():
    cells = {cell.name: cell for cell in load_protocol("contrasts").cells()}
    assert len(cells) == 32
    for name, cell in cells.items():
        if cell.optimizer_name == "control":
            other = cells[name.replace("control", "acgd")]
            differing = {
                line.split(":")[0] for line in differences(other.as_dict(), cell.as_dict())
            }
            assert differing <= {
                "name",
                "optimizer_name",
                "optimizer.interaction",
                # Nothing is solved.
                "optimizer.rtol",
                "optimizer.max_iter",
                "cost.step",
                "cost.product",
            }
            assert (cell.optimizer.interaction, other.optimizer.interaction) == (0, 1)
            assert cell.cost.product == 0 < other.cost.product


def test_a_budget_needs_a_measured_cost():
    cells = load_protocol("contrasts", ["run.batch_size=33"])
    with pytest.raises(BenchmarkError, match="batch 33, acgd, wgan, none' has not been measured"):
        cells.cells()


def test_the_paper_protocol_is_the_published_setting():
    cells = load_protocol("paper").cells()
    assert {cell.steps for cell in cells} == {468_500}
    assert {cell.batch_size for cell in cells} == {64}
    assert {cell.network.width for cell in cells} == {1.0}
    assert {cell.seed for cell in cells} == {0, 1, 2}
    acgd = {cell.optimizer.lr for cell in cells if cell.optimizer.kind == "acgd"}
    assert acgd == {1e-4}
    published = [cell for cell in cells if cell.optimizer_name == "adam-5-critic-steps"]
    assert {cell.optimizer.critic_steps for cell in published} == {5}
    assert {cell.optimizer.betas for cell in published} == {(0.5, 0.99)}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("run.stps=3", r"`run.stps`.*Did you mean"),
        ("run.steps=many", r"`run.steps`.*could not be converted"),
        ("run.steps=0", r"`steps` must be 1 or more, got 0"),
        ("run.budget=0", "`budget` must be positive"),
        ("run.cost.step=0", "`cost.step` must be positive"),
        ("run.evaluation.points=2", "`evaluation.points` must be 0 without a `budget`"),
        ("run.evaluation.endpoint_metrics=[fd_cifar10net_v1]", "1 or more with `endpoint_metrics`"),
        ("optimizers.acgd.interaction=-1", "`optimizer.interaction` must be 0 or positive"),
        ("optimizers.adam.interaction=0", "`optimizer.interaction` must be 1 for adam"),
        ("run.network.kind=vgg", r"`run.network.kind`.*expected one of.*dcgan"),
        ("run.network.width=0", "`network.width` must be positive"),
        ("optimizers.adam.kind=sgd", r"`optimizer.kind` must be one of.*acgd"),
        ("optimizers.adam.betas=[0.5,1.0]", r"betas` must be in \[0, 1\)"),
        ("optimizers.adam.critic_steps=2", "only adam-alternating takes several"),
        ("optimizers.adam.lr=0", "lr` must be positive"),
        ("terms.none.kind=nothing", r"`term.kind` must be one of.*wgan-gp"),
        ("tables.0.losses=[wgan,hinge]", "needs a zero-sum loss"),
        ("tables.0.losses=[lsgan]", "`loss` must be one of.*hinge"),
        ("tables.0.terms=[nothing]", r"names the term 'nothing'; the protocol has"),
        ("tables.0.optimizers=[sgd]", "names the optimizer 'sgd'"),
        ("tables=[]", "has no cells"),
        ("run.evaluation.ema_images=0", "ema_images"),
    ],
)
def test_a_mistake_is_one_clear_error(override, message):
    with pytest.raises(BenchmarkError, match=message):
        load_protocol("smoke", [override]).cells()


def test_unknown_and_damaged_files_are_named(tmp_path):
    with pytest.raises(BenchmarkError, match=r"no protocol 'smok'.*final.*paper.*smoke"):
        load_protocol("smok")
    file = tmp_path / "own.yaml"
    file.write_text("run: {steps: [1\n")
    with pytest.raises(BenchmarkError, match=r"own.yaml cannot be read"):
        load_protocol(str(file))
    file.write_text("- 1\n")
    with pytest.raises(BenchmarkError, match=r"own.yaml"):
        load_protocol(str(file))


def test_a_file_of_the_users_own_is_accepted(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text(
        "run: {steps: 7}\n"
        "optimizers: {slow: {kind: cgd, lr: 0.5}}\n"
        "terms: {plain: {kind: none}}\n"
        "tables: [{optimizers: [slow], losses: [bce], terms: [plain], seeds: [4]}]\n"
    )
    (cell,) = load_protocol(str(file), ["run.batch_size=5"]).cells()
    assert cell.name == "slow_bce_plain_seed4"
    assert (cell.steps, cell.batch_size, cell.seed) == (7, 5, 4)
    assert cell.optimizer == OptimizerConfig(kind="cgd", lr=0.5)


def test_a_cell_named_twice_counts_once(tmp_path):
    cells = load_protocol("smoke", ["tables.0.seeds=[0,0,1]"]).cells()
    assert len(cells) == 2 * len(load_protocol("smoke").cells())


def test_a_configuration_survives_its_file():
    config = RunConfig(network=NetworkConfig(width=0.25))
    assert run_config(config.as_dict()) == config
    assert RunConfig.from_dict(json.loads(json.dumps(config.as_dict()))) == config
    with pytest.raises(BenchmarkError, match="no configuration of a run"):
        RunConfig.from_dict({"name": "x"})


def test_cells_do_not_share_what_can_be_changed():
    first, second = load_protocol("smoke").cells()[:2]
    first.evaluation.at.append(7)
    assert 7 not in second.evaluation.at


def test_differences_name_the_leaves():
    stored = {"a": 1, "b": {"c": [1, 2], "d": "x"}}
    asked = {"a": 1, "b": {"c": [1, 3]}, "e": None}
    assert differences(stored, stored) == []
    assert differences(stored, asked) == [
        "b.c: stored [1, 2], asked [1, 3]",
        "b.d: stored 'x', asked 'absent'",
        "e: stored 'absent', asked None",
    ]


def test_the_final_protocol_has_the_best_trial_of_each_method_with_fresh_seeds(tmp_path):
    protocol = load_protocol("tuning")
    metric = protocol.run.evaluation.metrics[0]
    for cell in protocol.cells():
        # The third trial is best; one method has a trial left to run.
        if cell.name == "adam_bce_diversity_trial7":
            continue
        distance = 1.0 if cell.name.endswith("trial2") else 2.0
        row = {"step": 1, "generator": "ema", "final": False, "metrics": {metric: distance}}
        values = {"state": "finished", "run": cell.as_dict(), "evaluations": [row]}
        (tmp_path / f"{cell.name}.json").write_text(json.dumps(values))
    file = tmp_path / "final.yaml"
    assert main(["choose", str(tmp_path), "--out", str(file)]) == 0
    cells = {cell.name: cell for cell in load_protocol(str(file)).cells()}
    trials = {cell.name: cell for cell in protocol.cells()}
    assert len(cells) == 13 * 8
    for name, cell in cells.items():
        trial = trials[f"{cell.method.replace('-tuned', '')}_trial2"]
        assert (cell.optimizer, cell.term, cell.cost) == (trial.optimizer, trial.term, trial.cost)
        assert cell.budget == 2 * trial.budget
        assert cell.seed in range(8, 16), name
        assert cell.evaluation.endpoint_metrics != trial.evaluation.endpoint_metrics
    assert cells["adam-tuned_wgan_wgan-gp_seed8"].term.options != {}
    # All trials are alike here, so the first explicit method is the best.
    penalty = "adam-tuned_wgan_wgan-gp"
    assert load_protocol(str(file)).contrasts == [
        ["acgd-tuned_wgan_none", "control-tuned_wgan_none"],
        ["acgd-tuned_wgan_none", penalty],
        ["acgd-tuned_bce_none", "control-tuned_bce_none"],
        ["acgd-tuned_bce_none", penalty],
    ]
    assert list(cells)[::8][:3] == [
        f"{name}_seed8" for name in ("acgd-tuned_wgan_none", "control-tuned_wgan_none", penalty)
    ]


def test_the_final_protocol_compares_the_best_methods_of_the_trials(tmp_path):
    protocol = load_protocol("tuning")
    best = {"acgd_bce_none": 1.0, "acgd_wgan_none": 2.0, "adam_hinge_srgan": 1.0}
    wanted = {*best, "control_bce_none", "adam_wgan_wgan-gp", "adam_non-saturating_none"}
    for cell in protocol.cells():
        if cell.method in wanted:
            metrics = {protocol.run.evaluation.metrics[0]: best.get(cell.method, 3.0)}
            row = {"step": 1, "generator": "ema", "final": False, "metrics": metrics}
            values = {"state": "finished", "run": cell.as_dict(), "evaluations": [row]}
            (tmp_path / f"{cell.name}.json").write_text(json.dumps(values))
    assert choose(protocol, load_results(tmp_path))["contrasts"] == [
        ["acgd-tuned_wgan_none", "adam-tuned_wgan_wgan-gp"],
        ["acgd-tuned_bce_none", "control-tuned_bce_none"],
        ["acgd-tuned_bce_none", "adam-tuned_wgan_wgan-gp"],
        ["acgd-tuned_bce_none", "adam-tuned_hinge_srgan"],
    ]
