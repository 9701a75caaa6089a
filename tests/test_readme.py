"""The README's programs run, and it stays short."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

import compopt

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def test_it_is_short():
    assert len(README.splitlines()) <= 150


def test_the_example_runs():
    program = re.search(r"```python\n(import torch.*?)```", README, re.S).group(1)
    assert "range(2000)" in program
    names = {}
    exec(program.replace("range(2000)", "range(3)"), names)
    assert names["optimizer"].last_step.taken


@pytest.mark.parametrize("side", "-+")
def test_both_sides_of_the_change_from_two_optimizers_train(side):
    change = re.search(r"```diff\n(.*?)```", README, re.S).group(1)
    lines = [line[1:] for line in change.splitlines() if line[:1] in ("", " ", side)]
    generator, critic = nn.Linear(4, 2), nn.Linear(2, 1)
    before = [network.weight.detach().clone() for network in (generator, critic)]
    names = {
        "torch": torch,
        "ACGD": compopt.ACGD,
        "G": generator,
        "D": critic,
        "loader": [torch.randn(8, 2), torch.randn(8, 2)],
        "noise": lambda: torch.randn(8, 4),
    }
    exec("\n".join(lines), names)
    assert ("optimizer" in names) == (side == "+")
    for network, weight in zip((generator, critic), before, strict=True):
        assert not torch.equal(network.weight, weight)


def test_the_files_it_links_to_exist():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert len(links) > 10
    for link in links:
        assert (ROOT / link).exists(), link


def test_every_public_name_has_a_docstring_with_what_it_takes():
    for name in compopt.__all__:
        public = getattr(compopt, name)
        if name != "__version__":
            assert public.__doc__, name
