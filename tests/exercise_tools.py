"""Find every exercise of the course, its solution and its mutants.

``python tests/exercise_tools.py`` prints how many small changes to the solutions the
checks catch. Not a test itself: tests/test_exercises.py uses it.
"""

import ast
import copy
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import CodeType

import jupytext

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "notebooks" / "tools"))
sys.path.append(str(ROOT / "notebooks" / "flower_app"))  # what lesson 06 imports
sys.path.append(str(ROOT / "notebooks" / "secure-sum-app"))  # and lesson 13
import build  # noqa: E402

from course_utils.exercises import verdict  # noqa: E402

ANSWERS = ROOT / "tests" / "answers"


@dataclass(frozen=True)
class Solved:
    """An exercise as it stands in a lesson's source."""

    name: str
    function: str
    cell: str
    imports: str
    card: str

    def solution(self, tree: ast.Module | None = None) -> Callable:
        """Run the exercise's cell on its own and return the solution.

        Only the lesson's imports, and what earlier cells of the lesson define at top
        level that ``course_utils`` has too, may be used by it.
        """
        namespace: dict = {"__name__": "solution"}
        exec(self.imports, namespace)
        code: str | CodeType = self.cell
        if tree is not None:
            code = compile(ast.fix_missing_locations(tree), "<mutant>", "exec")
        exec(code, namespace)
        return namespace[self.function]


@cache
def find_exercises() -> list[Solved]:
    """Find every ``check("1.2", answer)`` in the sources, with the cell it checks."""
    found = []
    for source in sorted(build.SOURCES.glob("[0-9]*.py")):
        cells = jupytext.read(source).cells
        imports, cards, defining = [SHARED_NAMES], [], {}
        for cell in cells:
            if cell.cell_type == "markdown":
                cards.append(cell.source)
                continue
            tree = ast.parse(cell.source)
            for node in tree.body:
                if isinstance(node, ast.Import | ast.ImportFrom):
                    imports.append(ast.unparse(node))
                elif isinstance(node, ast.FunctionDef):
                    defining[node.name] = cell.source
            for call in re.finditer(r'^check\("([\d.]+)", (\w+)\)', cell.source, re.M):
                name, function = call.groups()
                (card,) = [c for c in cards if f"### Exercise {name}:" in c]
                found.append(
                    Solved(name, function, defining[function], "\n".join(imports), card)
                )
    return found


SHARED_NAMES = "from course_utils.model import Net, test, train, weighted_average"
"""What lessons define inline and exercises may use, since it is in course_utils too."""

# ---------------------------------------------------------------------------- mutants

SWAPS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Lt: ast.GtE,
    ast.GtE: ast.Lt,
    ast.Gt: ast.LtE,
    ast.LtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
}


def mutants(cell: str, function: str) -> Iterator[tuple[str, ast.Module]]:
    """Yield small changes to a solution, each with a description.

    Operators and comparisons are swapped, numbers and strings changed, booleans turned,
    and statements dropped, one at a time.
    """
    tree = ast.parse(cell)
    for position, change, what in list(changes(tree, function)):
        mutant = copy.deepcopy(tree)
        nodes = list(ast.walk(mutant))
        change(nodes[position])
        yield what, mutant


def changes(
    tree: ast.Module, function: str
) -> Iterator[tuple[int, Callable[[ast.AST], None], str]]:
    """List all changes: where, how, and in words."""
    nodes = list(ast.walk(tree))
    (target,) = [
        n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == function
    ]
    inside = {id(n) for part in target.body for n in ast.walk(part)}
    docstring = target.body[0].value if ast.get_docstring(target) else None
    for i, node in enumerate(nodes):
        if id(node) not in inside and node is not target:
            continue
        line = f"line {getattr(node, 'lineno', 0)}: "
        has_operator = isinstance(node, ast.BinOp | ast.AugAssign | ast.BoolOp)
        if has_operator and type(node.op) in SWAPS:
            swap = SWAPS[type(node.op)]
            what = f"{ast.unparse(node)} with {swap.__name__}"
            yield i, lambda n, s=swap: setattr(n, "op", s()), line + what
        elif isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
            swap = SWAPS[type(node.ops[0])]
            what = f"{ast.unparse(node)} with {swap.__name__}"
            yield i, lambda n, s=swap: n.ops.__setitem__(0, s()), line + what
        elif isinstance(node, ast.Constant) and node is not docstring:
            new = other_constant(node.value)
            if new is not None:
                what = f"{node.value!r} becomes {new!r}"
                yield i, lambda n, v=new: setattr(n, "value", v), line + what
        body = getattr(node, "body", None)
        if isinstance(body, list):
            for k, statement in enumerate(body):
                if isinstance(statement, ast.Expr) and statement.value is docstring:
                    continue
                what = f"line {statement.lineno}: drop {ast.unparse(statement)!r}"
                yield i, lambda n, k=k: n.body.__setitem__(k, ast.Pass()), what


def other_constant(value: object) -> object:
    """Return another constant of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str) and value:
        return value + "_"
    return None


@cache
def survivors(exercise: Solved) -> tuple[int, list[str]]:
    """Return how many mutants an exercise has, and those that its check accepts."""
    count, alive = 0, []
    for what, tree in mutants(exercise.cell, exercise.function):
        count += 1
        try:
            answer = exercise.solution(tree)
        except Exception:
            continue  # a cell that does not run is caught before the check
        if "correct: " in verdict(exercise.name, answer):
            alive.append(f"{exercise.name} {' '.join(what.split())}")
    return count, alive


def excused() -> dict[str, str]:
    """Return the survivors known to be equivalent to a solution, with the reason."""
    lines = [
        line
        for path in sorted(ANSWERS.glob("survivors_*.txt"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.strip()
    ]
    return dict(line.split(" -> ", 1) for line in lines)


def main() -> None:
    """Print the share of mutants caught, and each survivor."""
    total, alive = 0, []
    for exercise in find_exercises():
        count, own = survivors(exercise)
        total += count
        alive += own
        print(f"{exercise.name}: {count - len(own)} of {count} caught", flush=True)
    print(f"{total - len(alive)} of {total}: {(total - len(alive)) / total:.0%} caught")
    for survivor in alive:
        print(f"  {survivor} -> {excused().get(survivor, 'NO REASON GIVEN')}")


if __name__ == "__main__":
    main()
