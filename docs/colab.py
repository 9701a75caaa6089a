"""How the tutorial is opened in Colab, which depends on whether the repository has an address."""

import re


def repository(project: str) -> str:
    """Return the address on GitHub that ``pyproject.toml`` gives as ``Repository``, or ""."""
    found = re.search(r'^"?Repository"? = "(https://github\.com/[^"]+?)/?"$', project, re.M)
    return found[1] if found else ""


def sentence(project: str) -> str:
    """Return, in Markdown, how to open the tutorial in Colab."""
    address = repository(project)
    if address:
        place = (
            f"github/{address.removeprefix('https://github.com/')}/blob/main/docs/tutorial.ipynb"
        )
        return f"[Open it in Colab](https://colab.research.google.com/{place})."
    return (
        "To run it in Colab, download {download}`the notebook <tutorial.ipynb>`, upload it there "
        "(*File*, *Upload notebook*) together with a wheel (`pip wheel --no-deps .` in a clone "
        "makes one), and run its first cell."
    )
