"""Pages of all public names, written from the packages' ``__all__``."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import compopt

OPTIMIZERS = "Competitive optimizers"


def public_modules() -> list[str]:
    """Return the modules that have public names, those nearer to the top first."""
    found = list(pkgutil.walk_packages(compopt.__path__, "compopt."))
    top = {f"compopt.{name}" for name in compopt.__all__}
    names = ["compopt", *(m.name for m in found if m.ispkg or m.name in top)]
    names = [name for name in names if not any(part[0] == "_" for part in name.split("."))]
    names = [name for name in names if hasattr(importlib.import_module(name), "__all__")]
    return sorted(names, key=lambda name: (name.count("."), name))


def own_names(module: str) -> list[str]:
    """Return the public names of a module that no module nearer to the top has."""
    return [name for name in names_of(module) if home(module, name) == module]


def names_of(module: str) -> list[str]:
    """Return the public names of a module, its submodules left out."""
    loaded = importlib.import_module(module)
    return [name for name in loaded.__all__ if not inspect.ismodule(getattr(loaded, name))]


def home(module: str, name: str) -> str:
    """Return the module nearest to the top that has this object under this name."""
    public = getattr(importlib.import_module(module), name)
    for other in public_modules():
        if getattr(importlib.import_module(other), name, None) is public and name in names_of(
            other
        ):
            return other
    raise ValueError(f"`name` must be a public name of {module}, got {name!r}.")


def pages() -> dict[str, str]:
    """Return the text of the page of each module that has names of its own."""
    shown: dict[Any, str] = {}
    return {module: page(module, shown) for module in public_modules() if own_names(module) != []}


def page(module: str, shown: dict[Any, str]) -> str:
    """Return a module's page.

    Args:
        module: such as ``compopt.games``.
        shown: methods that pages before this one document, with the names of their classes.
    """
    lines = [module, "=" * len(module), "", f".. automodule:: {module}", "   :no-members:", ""]
    parts = groups(module, own_names(module))
    lines += [*table(module, [name for part in parts.values() for name in part]), ""]
    for title, group in parts.items():
        if title:
            lines += [title, "-" * len(title), ""]
        for name in group:
            lines += [*directive(module, name, shown), ""]
    return "\n".join(lines)


def table(module: str, names: list[str]) -> Iterator[str]:
    """Yield a table of names, each with the first sentence of its docstring."""
    yield from [".. list-table::", "   :class: names", "   :widths: 35 65", ""]
    for name in names:
        yield f"   * - :py:obj:`{name} <{module}.{name}>`"
        yield f"     - {summary(getattr(importlib.import_module(module), name))}"


def summary(public: Any) -> str:
    """Return the first paragraph of a docstring, up to its first full stop."""
    if not callable(public):
        return ""
    paragraph = " ".join((inspect.getdoc(public) or "").split("\n\n")[0].split())
    return paragraph.split(". ")[0].rstrip(".:") + "."


def groups(module: str, names: list[str]) -> dict[str, list[str]]:
    """Return the names under headings: at the top, what the modules say that they come from."""
    found: dict[str, list[str]] = {}
    for name in names:
        title = ""
        if module == "compopt":
            source = getattr(getattr(compopt, name), "__module__", "compopt")
            part = importlib.import_module(".".join(source.split(".")[:2]))
            title = (part.__doc__ or "").split("\n")[0].rstrip(".")
            title = "Version" if part is compopt else title
        found.setdefault(title, []).append(name)
    # What people come for first.
    return dict(sorted(found.items(), key=lambda item: item[0] != OPTIMIZERS))


def directive(module: str, name: str, shown: dict[Any, str]) -> Iterator[str]:
    """Yield the directive that documents a name, with the methods that no other class has shown."""
    public = getattr(importlib.import_module(module), name)
    full = f"{module}.{name}"
    if inspect.isfunction(public):
        yield f".. autofunction:: {full}"
    elif not inspect.isclass(public):
        yield f".. autodata:: {full}"
    else:
        kind = "autoexception" if issubclass(public, BaseException) else "autoclass"
        yield f".. {kind}:: {full}"
        methods = documented(public)
        new = [method for method, value in methods.items() if value not in shown]
        if new:
            yield f"   :members: {', '.join(new)}"
        inherited: dict[str, list[str]] = {}
        for method, value in methods.items():
            owner = shown.setdefault(value, full)
            if owner != full:
                inherited.setdefault(owner, []).append(method)
        for owner, which in inherited.items():
            links = ", ".join(f":py:obj:`{method} <{owner}.{method}>`" for method in which)
            yield from ["", f"   As in :py:class:`{owner}`: {links}."]


def documented(cls: type) -> dict[str, Any]:
    """Return the public methods and properties with docstrings that this package defines."""
    found = {}
    for base in cls.__mro__:
        if base.__module__.partition(".")[0] == "compopt":
            for name, value in vars(base).items():
                bare = getattr(value, "__func__", getattr(value, "fget", value))
                if name[0] != "_" and inspect.isfunction(bare) and bare.__doc__:
                    found.setdefault(name, bare)
    return found


def write_pages(folder: Path) -> None:
    """Write the pages into a folder, and take away those of modules that are gone."""
    folder.mkdir(exist_ok=True)
    written = {folder / f"{module}.rst": text for module, text in pages().items()}
    for stale in set(folder.glob("*.rst")) - set(written):
        stale.unlink()
    for path, text in written.items():
        # Sphinx reads again what has changed, by its time.
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
