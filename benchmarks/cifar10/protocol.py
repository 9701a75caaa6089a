"""A protocol: a file that defines optimizers, terms, and the cells to run."""

import copy
import dataclasses
import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from benchmarks.cifar10.config import RunConfig
from benchmarks.cifar10.costs import with_cost
from benchmarks.cifar10.errors import BenchmarkError
from benchmarks.cifar10.optimizers import OptimizerConfig
from benchmarks.cifar10.search import Methods, Search, Space
from benchmarks.cifar10.terms import TermConfig

FOLDER = Path(__file__).parent / "protocols"


@dataclass
class Table(Methods):
    """Cells for all combinations of methods and seeds.

    Attributes:
        seeds: seeds of weights, data order and noise.
        options: options that override those of the optimizers.
        term_options: options that override those of the terms.
    """

    seeds: list[int] = field(default_factory=lambda: [0])
    options: dict[str, Any] = field(default_factory=dict)
    term_options: dict[str, Any] = field(default_factory=dict)


@dataclass
class Protocol:
    """Contents of a protocol file.

    Attributes:
        description: one line.
        run: settings of all cells.
        optimizers: optimizers by name.
        terms: terms by name.
        tables: the cells in running order; duplicates run once.
        searches: trials of methods, which are cells too and run first.
        contrasts: pairs of methods (optimizer_loss_term) to compare, fixed in advance.
    """

    description: str = ""
    run: RunConfig = field(default_factory=RunConfig)
    optimizers: dict[str, OptimizerConfig] = field(default_factory=dict)
    terms: dict[str, TermConfig] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)
    searches: list[Search] = field(default_factory=list)
    contrasts: list[list[str]] = field(default_factory=list)

    def cells(self) -> list[RunConfig]:
        """Return the runs, with unique names.

        Raises:
            BenchmarkError: if a table uses an undefined name, or there is no cell.
        """
        found: dict[str, RunConfig] = {}
        for search in self.searches:
            for number, choices in enumerate(search.draws()):
                for choice in search:
                    cell = self._cell(search.seed, *choice, *search.changes(choices))
                    name = f"{cell.method}_trial{number}"
                    found.setdefault(name, dataclasses.replace(cell, name=name, choices=choices))
        for table in self.tables:
            for seed, choice in itertools.product(table.seeds, table):
                cell = self._cell(seed, *choice, table.options, table.term_options)
                found.setdefault(cell.name, cell)
        if not found:
            raise BenchmarkError("The protocol has no cells: its `tables` are empty.")
        # Look up costs last, because they depend on all other settings.
        return [c if c.budget is None else with_cost(c) for c in found.values()]

    def spaces(self) -> dict[str, dict[str, Space]]:
        """Return the search spaces by method and option."""
        return {
            f"{optimizer}_{loss}_{term}": search.space
            for search in self.searches
            for loss, optimizer, term in search
        }

    def _cell(
        self,
        seed: int,
        loss: str,
        optimizer: str,
        term: str,
        options: dict[str, Any],
        term_options: dict[str, Any],
    ) -> RunConfig:
        for kind, name, known in (
            ("optimizer", optimizer, self.optimizers),
            ("term", term, self.terms),
        ):
            if name not in known:
                raise BenchmarkError(
                    f"A table names the {kind} {name!r}; the protocol has {sorted(known)}."
                )
        own = self.terms[term]
        try:
            changed = dataclasses.replace(self.optimizers[optimizer], **options)
        except TypeError as error:
            raise BenchmarkError(f"A table or search has an unknown option: {error}") from error
        return dataclasses.replace(
            copy.deepcopy(self.run),
            name=f"{optimizer}_{loss}_{term}_seed{seed}",
            optimizer_name=optimizer,
            term_name=term,
            optimizer=changed,
            term=dataclasses.replace(own, options={**own.options, **term_options}),
            loss=loss,
            seed=seed,
        )


def run_config(values: dict[str, Any]) -> RunConfig:
    """Return a validated run from plain values."""
    made = _checked("the configuration", lambda: OmegaConf.merge(_schema(RunConfig), values))
    assert isinstance(made, RunConfig)
    return made


def load_protocol(name: str, overrides: list[str] | None = None) -> Protocol:
    """Return a protocol by name (a file in ``protocols/``) or path.

    Args:
        name: "smoke", "contrasts", "paper", or the path of a file in the same form.
        overrides: ``key=value``, such as ``run.steps=100`` or ``optimizers.acgd.lr=3e-4``.

    Raises:
        BenchmarkError: if there is no such file, or it or an override is not valid; the message
            names the key and the rule.
    """
    file = FOLDER / f"{name}.yaml"
    file = file if file.exists() else Path(name)
    if not file.is_file():
        names = sorted(known.stem for known in FOLDER.glob("*.yaml"))
        raise BenchmarkError(f"There is no protocol {name!r}: it must be one of {names} or a file.")

    def merge() -> Any:
        config = OmegaConf.merge(_schema(Protocol), OmegaConf.load(file))
        # Merge in place, which allows keys with list indices.
        config.merge_with_dotlist(overrides or [])
        return config

    made = _checked(str(file), merge)
    assert isinstance(made, Protocol)
    return made


def _schema(kind: type) -> Any:
    return OmegaConf.structured(kind)


def _checked(what: str, merge: Any) -> object:
    try:
        return OmegaConf.to_object(merge())
    except BenchmarkError as error:
        raise BenchmarkError(f"In {what}: {error}") from error
    except OmegaConfBaseException as error:
        key = f" (key `{error.full_key}`)" if error.full_key else ""
        first = str(error).splitlines()[0]
        raise BenchmarkError(f"In {what}{key}: {first}") from error
    except (YAMLError, OSError, ValueError, TypeError) as error:
        raise BenchmarkError(f"{what} cannot be read: {error}") from error
