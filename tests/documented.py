"""Commands that the pages tell people to run."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "kernels/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "docs" / "tutorial.ipynb",
    *sorted((ROOT / "benchmarks").glob("*/README.md")),
]
# Without what sets the environment, and one spelling for scripts.
COMMAND = re.compile(
    r"(?:[A-Z_]+=\S+ )*(?:exec )?(?:python (?=examples|\.ci))?"
    r"((?:python|pip|pytest|torchrun|make|git|sbatch)\s\S.*|\.ci/\S.*|examples/\S+\.py.*)"
)
FENCE = re.compile(r"^(`{3,})(.*)$")


def commands_of(text: str) -> list[str]:
    """Return the commands of a page: lines of blocks without a language, and code in sentences.

    A block that has a command holds nothing else but comments and exported variables.
    """
    found, sentences, fences = [], [], []
    block: list[str] = []
    for line in text.splitlines():
        fence = FENCE.match(line)
        if fence and fences and not fence[2] and len(fence[1]) >= len(fences[-1][0]):
            language = fences.pop()[1]
            found += commands_of_block(block) if not language else []
            block = []
        elif fence:
            fences.append((fence[1], fence[2].strip()))
        elif fences and not fences[-1][1].startswith("{"):
            block.append(line)
        else:
            sentences.append(line)
    assert not fences, fences
    for span in re.findall(r"`([^`]+)`", "\n".join(sentences)):
        if command := COMMAND.fullmatch(" ".join(span.split())):
            found.append(command[1])
    return found


def commands_of_block(lines: list[str]) -> list[str]:
    """Return the commands of a block without a language; none if it is a picture."""
    bare = [re.sub(r"(^|\s+)#.*", "", line) for line in lines]
    bare = [line for line in bare if line and not line.startswith("export ")]
    commands = [COMMAND.fullmatch(line) for line in bare]
    assert all(commands) or not any(commands), lines
    return [command[1] for command in commands if command]


def documented() -> list[str]:
    """Return the commands of all pages, each once."""
    return list(dict.fromkeys(c for page in PAGES for c in commands_of(page.read_text())))
