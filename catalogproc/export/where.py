"""Conditions on rows as users write them: ``good_mass_age and m_h > -0.5``.

The text is parsed as Python, and only the syntax below is accepted. It is translated to an
Arrow expression and never evaluated as Python.

==============================  ====================================================
columns                         the catalog's, by name
numbers, strings                ``4500``, ``-0.5``, ``1e3``, ``"a1b2c3d4"``
comparisons                     ``<  <=  ==  !=  >=  >``, also ``1 < mass < 2``
lists                           ``source_id in (1, 2)``, ``model_id not in ("a", "b")``
``and  or  not``                of conditions
``+  -  *  /  **``              of numbers, in double precision
``flag("RUWE", …)``             at least one of these bits of quality_flags or input_flags is set
``finite(x)``                   x is neither NaN nor infinite
``abs(x) log10(x) sqrt(x)``     of numbers
==============================  ====================================================

A comparison with NaN is false: ``teff > 4000`` excludes stars without a teff. 64-bit integers
are compared with integers only, because a float cannot hold every source_id.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.compute as pc

from catalogproc.contract import Contract
from catalogproc.errors import ContractError, JobError, did_you_mean
from catalogproc.flags import load_flags, load_input_flags

MAX_LENGTH = 2_000
"""Characters of a condition."""

_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.GtE: operator.ge,
    ast.Gt: operator.gt,
}
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: pc.power,
}
_FUNCTIONS: dict[str, Callable[[Any], Any]] = {"abs": pc.abs, "log10": pc.log10, "sqrt": pc.sqrt}
_NAMES = ("flag", "finite", *_FUNCTIONS)


@dataclass(frozen=True)
class Condition:
    """A condition on rows.

    Attributes
    ----------
    text
        As the user wrote it.
    columns
        The columns that it needs.
    expression
        Its pyarrow.compute.Expression.
    """

    text: str
    columns: tuple[str, ...]
    expression: Any


@dataclass(frozen=True)
class _Term:
    """A part of a condition; ``kind`` is bool, integer, int64, float or string."""

    kind: str
    value: Any


def parse(text: str, contract: Contract) -> Condition:
    """Parse a condition on the rows of a table.

    Parameters
    ----------
    text
        The condition.
    contract
        The table's columns.

    Raises
    ------
    JobError
        The text cannot be parsed or holds other syntax; the message quotes it.
    ContractError
        No such column.
    """
    if len(text) > MAX_LENGTH:
        raise _error("the condition is too long", f"{MAX_LENGTH} characters", len(text))
    translator = _Translator(text, contract)
    try:
        tree = ast.parse(text.strip(), mode="eval")
        term = translator.translate(tree.body)
    except SyntaxError as error:
        place = f"{text.strip()!r}, at character {error.offset}"
        raise _error("the condition cannot be parsed", "Python syntax", place, _OPERATORS) from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise _error("the condition cannot be parsed", "a simpler one", error) from None
    if term.kind != "bool":
        raise _error("the result is not a condition", "a comparison or a boolean column", text)
    return Condition(text.strip(), tuple(dict.fromkeys(translator.columns)), term.value)


_OPERATORS = "write == for equal, and for &, or for |, not for !, and parentheses in pairs"


def _error(message: str, wanted: object, found: object, advice: str | None = None) -> JobError:
    return JobError(message, wanted=wanted, found=found, where="--where", advice=advice)


class _Translator:
    """Translates one condition and collects its columns."""

    def __init__(self, text: str, contract: Contract) -> None:
        self.text = text.strip()
        self.contract = contract
        self.columns: list[str] = []

    def translate(self, node: ast.expr) -> _Term:
        match node:
            case ast.Name():
                return self._column(node)
            case ast.Constant():
                return self._constant(node)
            case ast.BoolOp():
                return self._all_or_any(node)
            case ast.Compare():
                return self._comparison(node)
            case ast.BinOp():
                return self._arithmetic(node)
            case ast.UnaryOp():
                return self._sign(node)
            case ast.Call():
                return self._call(node)
        self._refuse(node, "columns, numbers, comparisons, and, or, not, + - * / **")

    def _refuse(self, node: ast.AST, wanted: str, advice: str | None = None) -> NoReturn:
        part = ast.get_source_segment(self.text, node) or self.text
        raise _error("this syntax is not allowed in a condition", wanted, part, advice)

    def _column(self, node: ast.Name) -> _Term:
        if node.id not in self.contract:
            names = ", ".join(self.contract.names)
            raise ContractError(
                "no such column", wanted=names, found=node.id, where="--where",
                advice=did_you_mean(node.id, self.contract.names),
            ) from None  # fmt: skip
        kind = self.contract[node.id].type
        self.columns.append(node.id)
        field = pc.field(node.id)
        if kind == "bool":
            return _Term("bool", field)
        if kind == "string":
            return _Term("string", field)
        if kind == "int64":
            return _Term("int64", field)
        if kind.startswith("int"):
            return _Term("integer", field.cast(pa.int64()))
        if kind.startswith("float"):
            return _Term("float", field.cast(pa.float64()))
        self._refuse(node, "a column of single values")

    def _constant(self, node: ast.Constant) -> _Term:
        match node.value:
            case bool():
                return _Term("bool", pc.scalar(node.value))
            case int():
                if abs(node.value) >= 1 << 63:
                    self._refuse(node, "integers of 64 bits")
                return _Term("integer", pc.scalar(pa.scalar(node.value, pa.int64())))
            case float():
                return _Term("float", pc.scalar(pa.scalar(node.value, pa.float64())))
            case str():
                return _Term("string", pc.scalar(node.value))
        self._refuse(node, "numbers and strings")

    def _all_or_any(self, node: ast.BoolOp) -> _Term:
        parts = [
            self._value_of_kind(part, "bool", "conditions with and, or, not")
            for part in node.values
        ]
        combine = operator.and_ if isinstance(node.op, ast.And) else operator.or_
        value = parts[0]
        for part in parts[1:]:
            value = combine(value, part)
        return _Term("bool", value)

    def _value_of_kind(self, node: ast.expr, kind: str, wanted: str) -> Any:
        term = self.translate(node)
        if term.kind != kind:
            self._refuse(node, wanted)
        return term.value

    def _comparison(self, node: ast.Compare) -> _Term:
        sides = [node.left, *node.comparators]
        value = None
        for left, sign, right in zip(sides, node.ops, sides[1:], strict=False):
            if isinstance(sign, ast.In | ast.NotIn):
                result = self._membership(left, right, inside=isinstance(sign, ast.In))
            elif type(sign) in _COMPARISONS:
                result = self._compared(node, self.translate(left), sign, self.translate(right))
            else:
                self._refuse(node, "<, <=, ==, !=, >=, >, in")
            value = result if value is None else value & result
        return _Term("bool", value)

    def _compared(self, node: ast.AST, left: _Term, sign: ast.cmpop, right: _Term) -> Any:
        kinds = {left.kind, right.kind}
        if kinds == {"int64", "float"}:
            self._refuse(node, "integers to compare with a column of 64-bit integers")
        if not (kinds <= {"integer", "int64", "float"} or len(kinds) == 1):
            self._refuse(node, "two numbers, two strings or two conditions to compare")
        first, second = left.value, right.value
        if "float" in kinds:
            first, second = _double(left), _double(right)
        return _COMPARISONS[type(sign)](first, second)

    def _membership(self, left: ast.expr, right: ast.expr, *, inside: bool) -> Any:
        term = self.translate(left)
        items = right.elts if isinstance(right, ast.Tuple | ast.List | ast.Set) else []
        constants = [item.value for item in items if isinstance(item, ast.Constant)]
        wanted = {"string": str, "integer": int, "int64": int}.get(term.kind)
        if wanted is None or not items or [type(c) for c in constants] != [wanted] * len(items):
            self._refuse(right, "an integer or a string, and a list of such: (1, 2, 3)")
        values = pa.array(constants, pa.string() if wanted is str else pa.int64())
        is_in = pc.is_in(term.value, options=pc.SetLookupOptions(value_set=values))
        return is_in if inside else ~is_in

    def _arithmetic(self, node: ast.BinOp) -> _Term:
        if type(node.op) not in _ARITHMETIC:
            wanted = '+ - * / **; flag("NAME") for bits; and, or for conditions'
            self._refuse(node, wanted, _OPERATORS)
        first, second = self._number(node.left), self._number(node.right)
        return _Term("float", _ARITHMETIC[type(node.op)](first, second))

    def _number(self, node: ast.expr) -> Any:
        term = self.translate(node)
        if term.kind not in ("float", "integer"):
            self._refuse(node, "numbers; 64-bit integers are for comparisons only")
        return _double(term)

    def _sign(self, node: ast.UnaryOp) -> _Term:
        if isinstance(node.op, ast.Not):
            return _Term(
                "bool", ~self._value_of_kind(node.operand, "bool", "a condition after not")
            )
        if isinstance(node.op, ast.USub | ast.UAdd):
            minus = isinstance(node.op, ast.USub)
            constant = node.operand.value if isinstance(node.operand, ast.Constant) else None
            if isinstance(constant, int | float) and not isinstance(constant, bool):
                number = ast.Constant(-constant if minus else constant)
                return self._constant(ast.copy_location(number, node.operand))
            value = self._number(node.operand)
            return _Term("float", pc.negate(value) if minus else value)
        self._refuse(node, "not, + or -")

    def _call(self, node: ast.Call) -> _Term:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name not in _NAMES or node.keywords:
            self._refuse(node, ", ".join(f"{known}(…)" for known in _NAMES))
        if name == "flag":
            return self._flag(node)
        if len(node.args) != 1:
            self._refuse(node, f"{name}(x)")
        value = self._number(node.args[0])
        if name == "finite":
            return _Term("bool", pc.is_finite(value))
        return _Term("float", _FUNCTIONS[name](value))

    def _flag(self, node: ast.Call) -> _Term:
        names = [item.value for item in node.args if isinstance(item, ast.Constant)]
        columns = {"quality_flags": load_flags(), "input_flags": load_input_flags()}
        known = [flag.name for flags in columns.values() for flag in flags.flags]
        if not node.args or len(names) != len(node.args) or not set(names) <= set(known):
            self._refuse(node, f'flag("NAME", …), of {", ".join(known)}')
        terms = []
        for column, flags in columns.items():
            wanted = [flag.name for flag in flags.flags if flag.name in names]
            if wanted:
                self.columns.append(column)
                mask = pa.scalar(flags.mask(*wanted), pa.int32())
                bits = pc.bit_wise_and(pc.field(column), pc.scalar(mask))
                terms.append(bits != pa.scalar(0, pa.int32()))
        return _Term("bool", reduce(operator.or_, terms))


def _double(term: _Term) -> Any:
    return term.value.cast(pa.float64()) if term.kind in ("integer", "int64") else term.value
