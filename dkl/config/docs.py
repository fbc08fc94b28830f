"""The line of documentation under each field of the schema. Python does not keep it, so it is read from the source."""

import ast
import inspect
import textwrap
from itertools import pairwise


def field_lines(config: type) -> dict[str, str]:
    """Return field name -> the string literal under it, for a dataclass of the schema."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(config))).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for statement, below in pairwise(definition.body):
        match statement, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = text
    return found
