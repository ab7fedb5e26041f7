"""Vectors of 16 numbers inside Numba's kernels, for loops that the compiler does not find out by itself.

The compiler takes several numbers at a time where an inner loop writes one array. It cannot know that sums over the rows of a
matrix may stay in registers while the matrix is written. A kernel then says so: it calls `load` for 16 numbers of an array,
calculates with them by +, - and *, with each other or with a number, and calls `store`, or `total` for their sum.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import types
from numba.core.typing.templates import Signature
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable

from fw_rl.kernels import Kernel

__all__ = ["LANES", "filled", "load", "store", "total"]

LANES = 16
"""Numbers of a vector."""

_FAST = ("reassoc", "contract", "nsz", "arcp")


class _Vector(types.Type):  # type: ignore[misc]
    def __init__(self, dtype: types.Float) -> None:
        self.dtype = dtype
        super().__init__(name=f"vector of {LANES} {dtype}")


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, vector: _Vector) -> None:
        number = manager.lookup(vector.dtype).get_value_type()
        super().__init__(manager, vector, ir.VectorType(number, LANES))


def _load(typing: Any, array: Any, begin: types.Integer) -> tuple[Signature, Callable[..., Any]]:
    """The numbers of an array [N] from `begin` on."""

    def make(context: Any, builder: ir.IRBuilder, signature: Signature, arguments: tuple[Any, ...]) -> ir.Value:
        place = _place(context, builder, signature.args[0], *arguments)
        return builder.load(place, align=array.dtype.bitwidth // 8)

    return _Vector(array.dtype)(array, begin), make


def _store(typing: Any, vector: _Vector, array: Any, begin: types.Integer) -> tuple[Signature, Callable[..., Any]]:
    """Write the numbers into an array [N], from `begin` on."""

    def make(context: Any, builder: ir.IRBuilder, signature: Signature, arguments: tuple[Any, ...]) -> ir.Value:
        place = _place(context, builder, signature.args[1], *arguments[1:])
        builder.store(arguments[0], place, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(vector, array, begin), make


def _filled(typing: Any, number: types.Float) -> tuple[Signature, Callable[..., Any]]:
    """The number in all places."""

    def make(context: Any, builder: ir.IRBuilder, signature: Signature, arguments: tuple[Any, ...]) -> ir.Value:
        return _spread(context, builder, arguments[0])

    return _Vector(number)(number), make


def _total(typing: Any, vector: _Vector) -> tuple[Signature, Callable[..., Any]]:
    """The sum of the numbers."""

    def make(context: Any, builder: ir.IRBuilder, signature: Signature, arguments: tuple[Any, ...]) -> ir.Value:
        several = arguments[0].type
        number = several.element
        name = f"llvm.vector.reduce.fadd.v{LANES}f{vector.dtype.bitwidth}"
        add = builder.module.declare_intrinsic(name, fnty=ir.FunctionType(number, [number, several]))
        return builder.call(add, [ir.Constant(number, -0.0), arguments[0]], fastmath=_FAST)

    return vector.dtype(vector), make


load: Kernel = intrinsic(_load)
store: Kernel = intrinsic(_store)
filled: Kernel = intrinsic(_filled)
total: Kernel = intrinsic(_total)


def _place(context: Any, builder: ir.IRBuilder, array_type: types.Array, array: ir.Value, begin: ir.Value) -> ir.Value:
    parts = context.make_array(array_type)(context, builder, array)
    first = builder.gep(parts.data, [begin])
    return builder.bitcast(first, ir.VectorType(first.type.pointee, LANES).as_pointer())


def _spread(context: Any, builder: ir.IRBuilder, number: ir.Value) -> ir.Value:
    several = ir.VectorType(number.type, LANES)
    first = builder.insert_element(ir.Constant(several, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(first, ir.Constant(several, ir.Undefined), mask)


def _register(operation: Callable[..., Any], instruction: str) -> None:
    @type_callable(operation)
    def typed(context: Any) -> Callable[..., Any]:
        def of(a: types.Type, b: types.Type) -> types.Type | None:
            if isinstance(b, _Vector) and isinstance(a, _Vector | types.Float):
                return b
            return None

        return of

    @lower_builtin(operation, _Vector, _Vector)  # type: ignore[untyped-decorator]
    def of_vectors(context: Any, builder: ir.IRBuilder, signature: Signature, arguments: tuple[Any, ...]) -> ir.Value:
        return getattr(builder, instruction)(*arguments, flags=_FAST)

    @lower_builtin(operation, types.Float, _Vector)  # type: ignore[untyped-decorator]
    def of_number(context: Any, builder: ir.IRBuilder, signature: Signature, arguments: tuple[Any, ...]) -> ir.Value:
        number, vector = signature.args
        several = _spread(context, builder, context.cast(builder, arguments[0], number, vector.dtype))
        return getattr(builder, instruction)(several, arguments[1], flags=_FAST)


for _operation, _instruction in ((operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul")):
    _register(_operation, _instruction)
