"""Mending an installed function in place: one expression or statement of its source is exchanged for another.

Why not a copy or a wrapper: the faults that `paddle_rt.paddleseg` mends are single expressions inside long functions.
Exchanging the expression copies nothing, keeps every other line as the package has it, and finds by itself whether
the fault is there: a package whose source has no such expression is left alone. The function object stays the same,
so whoever imported it before sees the mended one too.
"""

import ast
import copy
import inspect
import linecache
import textwrap
from collections.abc import Callable


def mend(function: Callable, exchanges: dict[str, str], **names: object) -> bool:
    """Exchange code in a function that is already defined.

    Args:
        function: A plain function or a method looked up on its class.
        exchanges: Faulty source to mended source, each an expression or statements. All of them or none are made.
        names: What the mended source uses and the function's module does not define.

    Returns:
        Whether the function was changed: False where some faulty code is absent or the mended names are in use already.
    """
    tree = _parse(function)
    if tree is None or any(name in function.__code__.co_names for name in names):
        return False
    exchange = _Exchange(exchanges)
    tree = ast.fix_missing_locations(exchange.visit(tree))
    if exchange.unused:
        return False
    tree.body[0].decorator_list.clear()
    source = ast.unparse(tree)
    # Tracebacks and the next mending read the source under this name; paddle.jit.to_static refuses one with a comma.
    filename = f"<mended {function.__module__}.{function.__qualname__}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    scope: dict[str, Callable] = {}
    exec(compile(source, filename, "exec"), function.__globals__, scope)
    function.__globals__.update(names)
    function.__code__ = scope[function.__name__].__code__
    return True


def contains(function: Callable, code: str) -> bool:
    """Tell whether a function's source has an expression or statement, however it is laid out."""
    tree, searched = _parse(function), _code(code)[0]
    return tree is not None and any(_same(node, searched) for node in ast.walk(tree))


def _parse(function: Callable) -> ast.Module | None:
    # By way of __code__, because a wrapper's own source counts and not that of what it wraps.
    code = getattr(function, "__code__", None)
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(code))) if code else None
    except OSError:
        return None


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


class _Exchange(ast.NodeTransformer):
    def __init__(self, exchanges: dict[str, str]) -> None:
        self.pairs = [(_faulty(faulty, mended), _code(mended)) for faulty, mended in exchanges.items()]
        self.unused = set(range(len(self.pairs)))

    def visit(self, node: ast.AST) -> ast.AST | list[ast.AST]:
        for i, (faulty, mended) in enumerate(self.pairs):
            if _same(node, faulty):
                self.unused.discard(i)
                new = copy.deepcopy(mended)
                return new[0] if isinstance(node, ast.expr) else new
        return self.generic_visit(node)


def _faulty(faulty: str, mended: str) -> ast.AST:
    # A call that becomes several statements is matched as the statement that it is.
    body = ast.parse(faulty).body
    return body[0] if isinstance(_code(mended)[0], ast.stmt) else _code(faulty)[0]
