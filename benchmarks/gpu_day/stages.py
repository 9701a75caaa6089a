"""What the stages of the day do, on a device and, tiny, in a dry run."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.gpu_day.running import Task

LIMIT = 540.0
"""Seconds of a stage."""
DRY_LIMIT = 300.0
"""Seconds of a task of a dry run, whatever the machine does besides."""


@dataclass(frozen=True)
class Day:
    """What all stages share.

    Attributes:
        out: folder of the results that are carried home, few and small.
        work: folder of everything else.
        data: folder of CIFAR-10, None to look for it as that benchmark does.
        protocol: of the CIFAR-10 runs.
        steps: of each of these runs.
        dry: whether to go through everything, tiny, on the CPU.
    """

    out: Path
    work: Path
    data: Path | None = None
    protocol: str = "contrasts"
    steps: int = 2000
    dry: bool = False

    @property
    def device(self) -> tuple[str, ...]:
        """Options that say where to run."""
        return "--device", "cpu" if self.dry else "cuda"

    @property
    def kind(self) -> str:
        """The device in the names of files, as the benchmarks write them."""
        return "" if self.dry else "_cuda"


def _tests(day: Day, name: str, seconds: float) -> Task:
    """Return the tests of a file, for all that it has."""
    variables = {"TRITON_INTERPRET": "0"}
    options: tuple[str, ...] = ("-q", "-rfE", "-m", "gpu", f"tests/device/test_{name}.py")
    if day.dry:
        variables = {"TRITON_INTERPRET": "1", "COMPOPT_TEST_DEVICE": "cpu"}
        options += ("-k", "few and cg_scalars" if name == "kernels" else "float64")
    return Task(f"tests of {name}", ("-m", "pytest", *options), seconds, environment=variables)


def _step_cost(day: Day, workload: str, seconds: float) -> Task:
    optimizers: tuple[str, ...] = (
        *("adam", "adam-fused", "adam-captured", "compopt", "compopt-torch"),
        *("compopt-two", "compopt-captured", "cgds"),
    )
    tiny: tuple[str, ...] = ("--rounds", "40")
    if day.dry:
        optimizers, tiny = ("adam", "compopt-captured"), ("--rounds", "1", "--batch-size", "4")
    out = day.work / f"step_cost_{workload}"
    command = ("-m", "benchmarks.step_cost", *day.device, "--workloads", workload, *tiny)
    command += ("--optimizers", *optimizers, "--out", str(out))
    return Task(f"step cost of {workload}", command, seconds, (out / f"step_cost{day.kind}.json",))


def stage_a(day: Day) -> list[Task]:
    """Return tests, kernels, the cost of a step and its phases."""
    work, dry = day.work, day.dry
    kind = "cpu" if dry else "cuda"
    sizes = ("4096", "--rounds", "1", "--no-compiled") if dry else ("65536", "8388608", "134217728")
    profile: tuple[str, ...] = ("--optimizer", "adam", "compopt-two", "compopt", "compopt-torch")
    workload = "dcgan"
    if dry:
        workload = "poisson"
        profile = ("--optimizer", "adam", "--batch-size", "4", "--steps", "1")
    terms = ("--rounds", "1", "--batch-size", "2", "--only", "L2") if dry else ("--rounds", "9")
    return [
        _tests(day, "kernels", 110),
        *([] if dry else [_tests(day, "capture", 60)]),
        _tests(day, "steps", 90),
        *([] if dry else [_tests(day, "places", 60)]),
        *(_step_cost(day, name, 45) for name in (["poisson"] if dry else ["dcgan", "small"])),
        Task(
            "kernels",
            ("-m", "benchmarks.kernels", *day.device, "--out", str(work), "--size", *sizes),
            100,
            (work / f"kernels_{kind}.json",),
        ),
        Task(
            "phases",
            (
                *("-m", "benchmarks.profile", *day.device, "--workload", workload, *profile),
                *("--out", str(work / "profile"), "--traces", str(work / "traces")),
            ),
            60,
            (work / "profile" / f"{workload}_{kind}.json",),
        ),
        *([] if dry else [_step_cost(day, name, 45) for name in ("resnet", "poisson")]),
        Task(
            "penalties",
            ("-m", "benchmarks.penalties", *day.device, *terms, "--out", str(work)),
            60,
            (work / f"penalties{day.kind}.json",),
        ),
    ]


def _cells(day: Day, seed: int, seconds: float) -> Task:
    """Return the cells of one seed, for equal steps, in the protocol's order."""
    sweep = day.work / f"cifar10_seed{seed}"
    protocol, changes = day.protocol, [f"run.steps={day.steps}", f"tables.0.seeds=[{seed}]"]
    if day.dry:
        protocol = "smoke"
        changes += [
            *("run.steps=2", "run.evaluation.at=[]", "run.evaluation.images=20"),
            *("run.evaluation.metrics=[]", "run.evaluation.final_metrics=[repetition_pixels8]"),
            *("run.evaluation.final_images=20", "run.evaluation.norm_images=20"),
            *("tables.0.optimizers=[acgd]", "tables.0.losses=[wgan]", "tables.0.terms=[none]"),
        ]
    else:
        changes += ["run.device=cuda", "run.budget=null", "run.evaluation.points=0"]
        changes += ["run.evaluation.endpoint_metrics=[]"]
        changes += ["run.evaluation.final_metrics=[fd_cifar10net_v1]"]
    command = ("-m", "benchmarks.cifar10", "run", protocol, "--out", str(sweep))
    command += ("--workers", "1" if day.dry else "4", *_data(day))
    for change in changes:
        command += ("-o", change)
    return Task(f"cells of seed {seed}", command, seconds)


def _data(day: Day) -> tuple[str, ...]:
    return () if day.data is None else ("--data", str(day.data))


def _packed(day: Day, seed: int) -> Task:
    """Return what packs the results of a seed, without checkpoints and pictures."""
    sweep, archive = day.work / f"cifar10_seed{seed}", day.out / f"cifar10_seed{seed}.zip"
    command = ("-m", "benchmarks.gpu_day.packing", str(sweep), str(archive))
    return Task(f"results of seed {seed}", command, 20, repeats=True)


def _images(day: Day) -> Task:
    return Task("images", ("-m", "benchmarks.cifar10", "data", *_data(day)), 40, repeats=True)


def _judged(day: Day, seed: int) -> Task:
    metric, images = ("repetition_pixels8", "20") if day.dry else ("fd_cifar10net_v1", "10000")
    sweep = day.work / f"cifar10_seed{seed}"
    command = ("-m", "benchmarks.cifar10", "judge", str(sweep), "--metrics", metric)
    return Task(f"judge of seed {seed}", (*command, "--images", images, *_data(day)), 50)


def stage_b(day: Day) -> list[Task]:
    """Return steps a second, and the cells of the first seed."""
    rates = day.work / "throughput.json"
    options: tuple[str, ...] = ("--seconds", "4", "--workload", "dcgan")
    optimizers: tuple[str, ...] = ("adam", "adam-captured", "compopt-two", "compopt-captured")
    if day.dry:
        options = ("--seconds", "0.2", "--workload", "poisson", "--batch-size", "4")
        options += ("--processes", "1")
        optimizers = ("adam",)
    command = ("-m", "benchmarks.gpu_day.throughput", *day.device, *options)
    command += ("--optimizers", *optimizers, "--out", str(rates))
    return [
        _images(day),
        Task("steps a second", command, 150, (rates,)),
        _cells(day, 0, 300),
        _judged(day, 0),
        _packed(day, 0),
    ]


def stage_c(day: Day) -> list[Task]:
    """Return the cells of further seeds, and the judgement of all that are here."""
    tasks = [_images(day)]
    for seed in (1,) if day.dry else (1, 2):
        tasks += [_cells(day, seed, 190), _judged(day, seed), _packed(day, seed)]
    return tasks


_STAGES: dict[str, Callable[[Day], list[Task]]] = {"A": stage_a, "B": stage_b, "C": stage_c}
STAGES = tuple(_STAGES)


def tasks_of(stage: str, day: Day) -> list[Task]:
    """Return what a stage does, dearest to us first."""
    tasks = _STAGES[stage](day)
    return [replace(task, seconds=DRY_LIMIT) for task in tasks] if day.dry else tasks
