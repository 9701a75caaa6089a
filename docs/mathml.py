"""Formulas as MathML, made when the pages are built: browsers show it without script or network."""

from docutils import nodes
from math_core import LatexToMathML
from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata
from sphinx.writers.html5 import HTML5Translator

# A command that it does not know is an error, which ends the build.
CONVERTER = LatexToMathML(fancy_error=False)


def visit_math(writer: HTML5Translator, node: nodes.math) -> None:
    """Write a formula in the line."""
    latex = node.astext()
    writer.body.append(CONVERTER.convert_with_local_state(latex, displaystyle=False))
    raise nodes.SkipNode


def visit_math_block(writer: HTML5Translator, node: nodes.math_block) -> None:
    """Write a formula on its own, in a box that scrolls where the page is narrow."""
    latex = node.astext()
    # As Sphinx has it: lines outside an environment are aligned.
    if r"\\" in latex and not latex.startswith(r"\begin"):
        latex = rf"\begin{{aligned}}{latex}\end{{aligned}}"
    element = CONVERTER.convert_with_local_state(latex, displaystyle=True)
    writer.body.append(f'<div class="formula">{element}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the renderer."""
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
