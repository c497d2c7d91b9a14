"""Small changes to a right answer, each of which should make it wrong."""

from __future__ import annotations

import ast
from typing import Any

PAIRS = [(ast.Add, ast.Sub), (ast.Mult, ast.Div), (ast.Eq, ast.NotEq), (ast.Lt, ast.LtE)]
PAIRS += [(ast.Gt, ast.GtE)]
SWAPPED: dict[type, type] = dict([*PAIRS, *(pair[::-1] for pair in PAIRS)])
OTHER = {"max": "min", "argmax": "argmin", "sum": "mean", "mean": "sum", "log_softmax": "softmax"}


def mutants(solution: str) -> list[str]:
    """The solution with one thing changed: an operator, a number, a call or a branch left out."""
    count = sum(len(_changes(node)) for node in ast.walk(ast.parse(solution)))
    made = [ast.unparse(_Mutant(number).visit(ast.parse(solution))) for number in range(count)]
    return sorted(set(made) - {ast.unparse(ast.parse(solution))})


def _changes(node: ast.AST) -> list[ast.AST]:
    """What may stand in a node's place."""
    if isinstance(node, ast.BinOp) and type(node.op) in SWAPPED:
        return [ast.BinOp(node.left, SWAPPED[type(node.op)](), node.right), node.left]
    if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPPED:
        return [ast.Compare(node.left, [SWAPPED[type(node.ops[0])]()], node.comparators)]
    if isinstance(node, ast.UnaryOp) and not isinstance(node.operand, ast.Constant):
        return [node.operand]
    if isinstance(node, ast.IfExp):
        return [node.body, node.orelse]
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        return [ast.Constant(not node.value if node.value is True else node.value + 1)]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        other = ast.Attribute(node.func.value, OTHER.get(node.func.attr, ""), ast.Load())
        renamed = [ast.Call(other, node.args, node.keywords)] if other.attr else []
        return [node.func.value, *renamed]
    return []


class _Mutant(ast.NodeTransformer):
    """Makes the change with this number."""

    def __init__(self, number: int) -> None:
        self.left = number

    def visit(self, node: ast.AST) -> Any:
        changes = _changes(node)
        if 0 <= self.left < len(changes):
            chosen, self.left = changes[self.left], -1
            return chosen
        self.left -= len(changes) if self.left >= 0 else 0
        return self.generic_visit(node)
