"""A patched copy of an installed function: some of its expressions or statements are exchanged for others.

The faults that are corrected this way are single expressions inside long functions. A copy leaves the installed package
as it is, and every other line of the function as the package has it.
"""

import ast
import copy
import inspect
import linecache
import textwrap
from collections.abc import Callable


def patched(function: Callable, exchanges: dict[str, str], **names: object) -> Callable:
    """Return a copy of a function with parts of its source exchanged.

    Args:
        function: A plain function, or a method looked up on its class.
        exchanges: Source to search for and the source that replaces it, each an expression or statements.
        **names: Global names of the copy that differ from those of the function's module.

    Raises:
        LookupError: The function has no such source: the package is not of the version that the patch is for.
    """
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    exchange = _Exchange(exchanges)
    tree = ast.fix_missing_locations(exchange.visit(tree))
    if exchange.unused:
        missing = [list(exchanges)[number] for number in sorted(exchange.unused)]
        raise LookupError(f"{function.__module__}.{function.__qualname__} has no code {missing}")
    tree.body[0].decorator_list.clear()
    source = ast.unparse(tree)
    # Tracebacks read the source under this name; paddle.jit.to_static refuses one with a comma.
    filename = f"<patched {function.__module__}.{function.__qualname__}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    scope = {**function.__globals__, **names}
    exec(compile(source, filename, "exec"), scope)
    return scope[function.__name__]


class _Exchange(ast.NodeTransformer):
    """Replaces every node that is like one of the searched ones, however it is laid out."""

    def __init__(self, exchanges: dict[str, str]) -> None:
        self.pairs = [(_searched(old, new), _code(new)) for old, new in exchanges.items()]
        self.unused = set(range(len(self.pairs)))

    def visit(self, node: ast.AST) -> ast.AST | list[ast.AST]:
        for number, (old, new) in enumerate(self.pairs):
            if _same(node, old):
                self.unused.discard(number)
                replacement = copy.deepcopy(new)
                return replacement[0] if isinstance(node, ast.expr) else replacement
        return self.generic_visit(node)


def _searched(old: str, new: str) -> ast.AST:
    # An expression that becomes statements is searched for as the statement that it is.
    return ast.parse(old).body[0] if isinstance(_code(new)[0], ast.stmt) else _code(old)[0]


def _code(source: str) -> list[ast.AST]:
    body = ast.parse(source).body
    return [body[0].value] if len(body) == 1 and isinstance(body[0], ast.Expr) else body


def _same(a: object, b: object) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, ast.AST):
        return all(_same(getattr(a, field, None), getattr(b, field, None)) for field in a._fields)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(_same, a, b))
    return a == b
