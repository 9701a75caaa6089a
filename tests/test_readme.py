"""The README's programs run."""

import re
from pathlib import Path

import torch

import compopt
from benchmarks.readme import updated

README = (Path(__file__).resolve().parent.parent / "README.md").read_text()


def test_the_example_runs():
    program = re.search(r"```python\n(import torch.*?)```", README, re.S).group(1)
    assert "range(2000)" in program
    names = {}
    exec(program.replace("range(2000)", "range(3)"), names)
    assert names["optimizer"].last_step.taken


def test_the_penalties_can_be_used_as_shown():
    program = re.search(r"```python\n(from compopt.penalties import.*?)```", README, re.S).group(1)
    torch.manual_seed(0)
    generator, critic = torch.nn.Linear(2, 3), torch.nn.Sequential(torch.nn.Linear(3, 1))
    real, z = torch.randn(5, 3), torch.randn(5, 2)
    optimizer = compopt.ACGD(generator.parameters(), critic.parameters(), lr=1e-3)
    loss = critic(real).mean() - critic(generator(z)).mean()
    names = {"G": generator, "D": critic, "optimizer": optimizer, "loss": loss}
    exec(program, names | {"real": real, "z": z})
    assert optimizer.last_step.taken


def test_the_files_it_links_to_exist():
    root = Path(__file__).resolve().parent.parent
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert len(links) > 5
    for link in links:
        assert (root / link).exists(), link


def test_every_public_name_has_a_docstring_with_what_it_takes():
    for name in compopt.__all__:
        public = getattr(compopt, name)
        if name != "__version__":
            assert public.__doc__, name


def test_the_figures_are_those_of_the_stored_results():
    assert updated(README) == README, "run `python -m benchmarks.readme`"
