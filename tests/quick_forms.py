"""The quickest form of each command that the pages tell people to run."""

CIFAR = "python -m benchmarks.cifar10"

QUICK = {
    f"{CIFAR} data": "{command} --data {data}",
    f"{CIFAR} init paper --out /shared/paper": f"{CIFAR} init paper --out {{out}}/a",
    f"{CIFAR} report out/contrasts": f"{CIFAR} report {{out}}/a",
    f"{CIFAR} status out/contrasts": f"{CIFAR} status {{out}}/a",
    f"{CIFAR} store out/contrasts --out benchmarks/results/cifar10/contrasts": (
        f"{CIFAR} store {{out}}/a --out {{out}}/b"
    ),
    f"{CIFAR} store out/tuning --out benchmarks/results/cifar10/tuning": (
        f"{CIFAR} store {{out}}/a --out {{out}}/b"
    ),
    "python -m benchmarks.constraints": "{command}",
    "python -m benchmarks.forms": (
        "{command} --losses hinge --budget 1 --seeds 1 --out {out}/forms.json"
    ),
    "python -m benchmarks.jax_cgd": "{command} --rounds 1 --out {out}",
    "python -m benchmarks.kernels --device cpu": (
        "{command} --size 64 --rounds 1 --no-compiled --out {out}"
    ),
    "python -m benchmarks.kernels --device cuda": "{command} --size 64 --out {out}",
    "python -m benchmarks.precision": "{command} --seeds 1 --out {out}/precision.json",
    "python -m benchmarks.small_games": (
        "{command} --rounds 1 --games '2 + 2 hidden layers of 32' --out {out}/games"
    ),
    "python -m benchmarks.soak": "{command} --steps 3 --out {out}/soak.json",
    "python -m benchmarks.walk": "{command} --files",
    ".ci/try_torch.py 2.6.0 --python python3.10": "python {command} --dry-run",
    ".ci/try_triton.py": "python {command} 3.2.0 --dry-run",
}
"""Executed together in a process of their own. ``{command}`` is the command as documented."""

SLOW = {
    "python -m benchmarks.compiled_steps": (
        "{command} --workloads poisson --batch-size 4 --rounds 1 --out {out}/steps.json"
    ),
    "python -m benchmarks.fused_layers": "{command} --rounds 1 --batch-size 2 --out {out}",
    "python -m benchmarks.kernels --static": "{command} --only average_squares",
    "python -m benchmarks.layer_sizes": "{command} --rounds 1 --sizes 4096 --out {out}",
    "python -m benchmarks.product_forms": (
        "{command} --workloads small --batch-size 2 --rounds 1 --no-compiler --out {out}"
    ),
    "python -m benchmarks.small_games --compiled": (
        "{command} --rounds 1 --games '2 + 2 hidden layers of 32' --out {out}/games"
    ),
    "python -m benchmarks.solver_study": (
        "{command} --data {data} --steps 2 --studied 1 --out {out}"
    ),
    "python -m benchmarks.step_cost": (
        "{command} --workloads poisson --optimizers compopt-one --rounds 1 --out {out}"
    ),
    "python -m benchmarks.step_scaling": "{command} --rounds 1 --points 4 --out {out}",
    "python -m benchmarks.strengths": "{command} --seeds 1 --budget 1 --out {out}/strengths.json",
    "python -m benchmarks.tolerances": "{command} --seeds 1 --budget 1 --out {out}/tolerances.json",
    "python -m benchmarks.weak_scaling": "{command} --out {out}",
    "python tests/plant_faults.py": "{command} digest",
    "pytest -m gpu": "python -m {command} --collect-only -q tests/device",
    "pytest -m slow tests/cifar10/test_sweep.py": "python -m {command} --collect-only -q",
}
"""Likewise, each for some seconds."""

EXAMPLES = "tests/examples/test_examples.py"
ELSEWHERE = {
    ".ci/run": ("tests/test_commands.py", "def test_ci_runs_targets"),
    ".ci/check_wheel.py": ("Makefile", ".ci/check_wheel.py"),
    "pip install .": (".ci/check_wheel.py", '"editable", "--editable", checkout'),
    "pip install torch": ("Makefile", "$(PIP) -e"),
    'pip install -e ".[dev]"': ("Makefile", '$(PIP) -e ".[dev]"'),
    'pip install "compopt[fid]"': ("pyproject.toml", "\nfid = ["),
    'pip install "compopt[second-opinion]"': ("pyproject.toml", "\nsecond-opinion = ["),
    "pip wheel --no-deps .": (".ci/check_wheel.py", '"build", "--outdir", work / "dist", checkout'),
    "examples/bilinear_game.py": (EXAMPLES, "def test_bilinear_game_has_"),
    "examples/constrained.py": (EXAMPLES, 'main_of("constrained")'),
    "examples/digits_gan.py": (EXAMPLES, 'main_of("digits_gan")'),
    "examples/gaussian_mixture_gan.py": (EXAMPLES, 'main_of("gaussian_mixture_gan")'),
    "examples/mode_collapse.py": (EXAMPLES, 'main_of("mode_collapse")'),
    "examples/robust_regression.py": (EXAMPLES, 'main_of("robust_regression")'),
    "examples/wgan_gp.py": (EXAMPLES, 'main_of("wgan_gp")'),
    "examples/poisson_pinn.py": ("tests/examples/test_poisson_pinn.py", "example.main("),
    "examples/distributed_gan.py": ("tests/elastic.py", "distributed_gan.py"),
    "torchrun --standalone --nproc-per-node 2 --max-restarts 10 examples/distributed_gan.py": (
        "tests/elastic.py",
        '"--max-restarts"',
    ),
    "torchrun --standalone --nproc-per-node 4 -m benchmarks.cifar10 cell /shared/paper "
    "adam_wgan_none_seed0": ("tests/cifar10/test_parallel.py", '"benchmarks.cifar10", "cell"'),
    f"{CIFAR} costs contrasts": ("tests/test_commands.py", '"costs"'),
    f"{CIFAR} report": ("tests/cifar10/test_report.py", "committed_text()"),
    f"{CIFAR} run smoke --out out/smoke": ("tests/cifar10/test_smoke.py", '["run", "smoke"'),
    f"{CIFAR} run contrasts --out out/contrasts": ("tests/cifar10/test_sweep.py", '["run", proto'),
    f"{CIFAR} run contrasts --out out/contrasts --workers 1": (
        "tests/cifar10/test_sweep.py",
        '["run", proto',
    ),
    f"{CIFAR} run tuning --out out/tuning --workers 1": (
        "tests/cifar10/test_sweep.py",
        '["run", proto',
    ),
    f"{CIFAR} run final.yaml --out out/final --workers 1": (
        "tests/cifar10/test_sweep.py",
        '["run", proto',
    ),
    f"{CIFAR} choose benchmarks/results/cifar10/tuning --out final.yaml": (
        "tests/cifar10/test_protocols.py",
        'main(["choose"',
    ),
    f"{CIFAR} work /shared/paper": ("tests/cifar10/test_sweep.py", 'main(["work", str(out)'),
    f"{CIFAR} work /shared/paper --workers 1": (
        "tests/cifar10/test_sweep.py",
        'main(["work", str(out)',
    ),
    f"{CIFAR} work out/paper --storage postgresql+psycopg://host/optuna": (
        "tests/cifar10/test_queue.py",
        '"--storage"',
    ),
    "python -m benchmarks.claims": ("tests/test_claims.py", 'command.main(["--only"'),
    "python -m benchmarks.claims --page": (
        "tests/test_claims.py",
        "PAGE.read_text() == page.page()",
    ),
    "python -m benchmarks.false_alarms": ("tests/test_false_alarms.py", "false_alarms.main()"),
    "python -m benchmarks.gpu_day A": ("tests/test_gpu_day.py", '"--dry-run"'),
    "python -m benchmarks.metrics --self-test --data FOLDER": (
        "tests/metrics/test_evaluate.py",
        "def test_the_self_test_passes_on_made_up_images",
    ),
    "python -m benchmarks.metrics.train_cifar10net --out FILE": (
        "tests/metrics/test_weights.py",
        "train_cifar10net.main(",
    ),
    "python -m benchmarks.penalties": ("tests/penalties/test_benchmark.py", "benchmark.main("),
    "python -m benchmarks.profile": ("tests/test_profile_benchmark.py", "profile.main("),
    "python -m benchmarks.toy": ("tests/toy/test_toy.py", 'toy.main(["--quick"'),
}
"""Executed by a file, at what it says there."""

MAKE = {
    "python -m sphinx": ("tests/test_site.py", '"sphinx"'),
    "python -m pytest -q benchmarks/micro.py": ("tests/test_micro_benchmarks.py", "micro.py"),
    "python -m pytest": ("tests/documented.py", ""),
    "COMPOPT_SITE=out/docs python -m pytest": (".ci/run", "make docs"),
    "ruff": (".ci/run", "make lint"),
    "check-jsonschema": (".ci/run", "make lint"),
    "mypy": (".ci/run", "make typecheck"),
    "basedpyright": (".ci/run", "make typecheck"),
    "rm -rf": ("Makefile", "clean:"),
}
"""What targets of make run besides commands of the pages, and who else runs that."""
