"""Vectors of WIDTH numbers for kernels that LLVM's loop vectoriser does not see through.

A `Vector` is a value like a float: it lives in registers, `+ - * /` and the functions below act on each number, and a
float beside it stands for WIDTH equal numbers. The functions of numbers take floats alone too, so that a formula
written with them serves both. `load` and `store` take the entries that a `Mask` allows: an odd end of a row costs no
loop of its own. LLVM splits vectors where the processor's are shorter.

    m = first(B - i)                        # as many of the WIDTH as are left of B columns
    z = load(Z, k * B + i, m)               # entries beyond are 0 and are not touched
    store(R, k * B + i, m, larger(z, 0.0))
"""

from __future__ import annotations

import operator

import numpy as np
from llvmlite import binding, ir
from numba import config, types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.core.errors import TypingError
from numba.extending import intrinsic, lower_builtin, register_model, type_callable

WIDTH = 8
SHIFTED = (
    1.5 * 2.0**52 + 1023.0
)  # added to x it leaves in the low bits what `power_of_two` makes 2^n of, n next to x


def _has_long_vectors():
    if config.CPU_FEATURES is not None or config.CPU_NAME is not None:
        return "+avx512f" in (config.CPU_FEATURES or "")
    try:
        return bool(binding.get_host_cpu_features().get("avx512f", False))
    except RuntimeError:  # LLVM does not know this processor's features
        return False


LONG = _has_long_vectors()  # whether one register holds WIDTH numbers of double precision

_double, _word, _int32 = ir.DoubleType(), ir.IntType(64), ir.IntType(32)
_vector, _mask, _words = (ir.VectorType(of, WIDTH) for of in (_double, ir.IntType(1), _word))


class _Register(types.Type):
    """Numba's type of a vector or a mask; `llvm` is what it is made of."""

    def __init__(self, name, llvm):
        self.llvm = llvm
        super().__init__(name=name)


@register_model(_Register)
class _RegisterModel(models.PrimitiveModel):
    def __init__(self, manager, fe_type):
        super().__init__(manager, fe_type, fe_type.llvm)


Vector, Mask = _Register(f"Vector({WIDTH})", _vector), _Register(f"Mask({WIDTH})", _mask)


def spread(builder, value):
    """A vector of equal numbers."""
    nothing = ir.Constant(ir.VectorType(value.type, WIDTH), ir.Undefined)
    one = builder.insert_element(nothing, value, ir.Constant(_int32, 0))
    return builder.shuffle_vector(one, nothing, ir.Constant(ir.VectorType(_int32, WIDTH), [0] * WIDTH))


def _on_numbers(emit, result=None):
    """An intrinsic on floats or vectors; `emit(builder, values)` gets them all in one form."""

    def typed(*arguments):
        if any(a is not Vector and not isinstance(a, types.Number) for a in arguments):
            raise TypingError("vectors or numbers expected")
        long = Vector in arguments
        signature = tuple(Vector if a is Vector else types.float64 for a in arguments)
        short = types.boolean if result is Mask else types.float64
        return ((result or Vector) if long else short)(*signature), codegen

    def codegen(context, builder, signature, values):
        if Vector in signature.args:
            pairs = zip(signature.args, values, strict=True)
            values = [v if a is Vector else spread(builder, v) for a, v in pairs]
        return emit(builder, values)

    return typed


def _instruction(name):
    """Emit LLVM's intrinsic of that name, on numbers or on vectors."""

    def emit(builder, values):
        kind = values[0].type
        full = f"llvm.{name}.{f'v{WIDTH}' if kind == _vector else ''}f64"
        function = ir.FunctionType(kind, [kind] * len(values))
        return builder.call(cgutils.get_or_insert_function(builder.module, function, full), values)

    return emit


def _emit_power_of_two(builder, values):
    (number,) = values
    long = number.type == _vector
    kind = _words if long else _word
    # the low bits of the number are n + 1023; moved up they are the exponent field
    up = ir.Constant(kind, [52] * WIDTH if long else 52)
    return builder.bitcast(builder.shl(builder.bitcast(number, kind), up), number.type)


_typed_multiply_add = _on_numbers(_instruction("fmuladd"))
_typed_square_root = _on_numbers(_instruction("sqrt"))
_typed_power_of_two = _on_numbers(_emit_power_of_two)
_typed_below = _on_numbers(lambda builder, v: builder.fcmp_ordered("<", *v), Mask)
_typed_equal = _on_numbers(lambda builder, v: builder.fcmp_ordered("==", *v), Mask)


@intrinsic
def _multiply_add(typingctx, a, b, c):
    return _typed_multiply_add(a, b, c)


@intrinsic
def _square_root(typingctx, x):
    return _typed_square_root(x)


@intrinsic
def _power_of_two(typingctx, shifted):
    return _typed_power_of_two(shifted)


@intrinsic
def _below(typingctx, a, b):
    return _typed_below(a, b)


@intrinsic
def _equal(typingctx, a, b):
    return _typed_equal(a, b)


@intrinsic
def _anywhere(typingctx, mask):
    def codegen(context, builder, signature, values):
        bits = builder.bitcast(values[0], ir.IntType(WIDTH))
        return builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))

    return types.boolean(Mask), codegen


@intrinsic
def _where(typingctx, mask, a, b):
    if mask is not Mask:
        return types.float64(
            types.boolean, types.float64, types.float64
        ), lambda c, builder, s, v: builder.select(*v)
    signature = tuple(x if x is Vector else types.float64 for x in (a, b))

    def codegen(context, builder, signature, values):
        pairs = zip(signature.args[1:], values[1:], strict=True)
        return builder.select(values[0], *[v if x is Vector else spread(builder, v) for x, v in pairs])

    return Vector(Mask, *signature), codegen


def _register_operator(function, instruction):
    typed = _on_numbers(lambda builder, values: getattr(builder, instruction)(*values))

    # not by `overload`, for which numba would compile a function for each pair of types
    @type_callable(function)
    def _(context):
        def signature(a, b):
            return typed(a, b)[0] if Vector in (a, b) else None

        return signature

    for pair in (Vector, Vector), (Vector, types.float64), (types.float64, Vector):
        lower_builtin(function, *pair)(typed(*pair)[1])


for _function, _instruction in [
    (operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul"), (operator.truediv, "fdiv"),
]:  # fmt: skip
    _register_operator(_function, _instruction)


@intrinsic
def _first(typingctx, count):
    def codegen(context, builder, signature, values):
        return builder.icmp_signed("<", ir.Constant(_words, list(range(WIDTH))), spread(builder, values[0]))

    return Mask(types.int64), codegen


@intrinsic
def _zeros(typingctx):
    return Vector(), lambda context, builder, signature, values: ir.Constant(_vector, [0.0] * WIDTH)


def _check_array(array):
    if not (
        isinstance(array, types.Array)
        and array.layout == "C"
        and array.dtype in (types.float32, types.float64)
    ):
        raise TypingError("a contiguous array of float64 or float32 expected")
    return ir.VectorType(
        _double if array.dtype == types.float64 else ir.FloatType(), WIDTH
    ), array.dtype.bitwidth


def _place(context, builder, kind, array, values):
    data = context.make_array(array)(context, builder, values[0]).data
    return builder.bitcast(builder.gep(data, [values[1]]), kind.as_pointer())


@intrinsic
def _load(typingctx, array, offset, mask):
    kind, bits = _check_array(array)

    def codegen(context, builder, signature, values):
        place = _place(context, builder, kind, signature.args[0], values)
        shape = ir.FunctionType(kind, [place.type, _int32, _mask, kind])
        name = f"llvm.masked.load.v{WIDTH}f{bits}.p0"
        function = cgutils.get_or_insert_function(builder.module, shape, name)
        zeros = ir.Constant(kind, [0.0] * WIDTH)
        found = builder.call(function, [place, ir.Constant(_int32, bits // 8), values[2], zeros])
        return found if bits == 64 else builder.fpext(found, _vector)

    return Vector(array, types.intp, Mask), codegen


@intrinsic
def _store(typingctx, array, offset, mask, vector):
    kind, bits = _check_array(array)

    def codegen(context, builder, signature, values):
        place = _place(context, builder, kind, signature.args[0], values)
        shape = ir.FunctionType(ir.VoidType(), [kind, place.type, _int32, _mask])
        name = f"llvm.masked.store.v{WIDTH}f{bits}.p0"
        function = cgutils.get_or_insert_function(builder.module, shape, name)
        stored = values[3] if bits == 64 else builder.fptrunc(values[3], kind)
        builder.call(function, [stored, place, ir.Constant(_int32, bits // 8), values[2]])
        return context.get_dummy_value()

    return types.void(array, types.intp, Mask, Vector), codegen


def _interpreted_first(count):
    return np.arange(WIDTH) < count


def _interpreted_load(array, offset, mask):
    vector = np.zeros(WIDTH)
    vector[mask] = array.ravel()[offset + np.flatnonzero(mask)]
    return vector


def _interpreted_store(array, offset, mask, vector):
    array.reshape(-1)[offset + np.flatnonzero(mask)] = vector[mask]


def _interpreted_power_of_two(shifted):
    bits = np.asarray(shifted, np.float64).view(np.int64)
    return (bits << 52).view(np.float64)


if config.DISABLE_JIT:
    first, load, store = _interpreted_first, _interpreted_load, _interpreted_store
    power_of_two, where = _interpreted_power_of_two, np.where
    below, equal, anywhere, square_root = operator.lt, operator.eq, np.any, np.sqrt

    def zeros():
        """WIDTH zeros."""
        return np.zeros(WIDTH)

    def multiply_add(a, b, c):
        """a b + c."""
        return a * b + c
else:
    # first(count): the mask of the first `count` entries, all of them from WIDTH on, none below 1
    # load(array, offset, mask), store(array, offset, mask, vector): at array's entry `offset`, counted flat
    # zeros(): a vector of zeros
    # multiply_add(a, b, c): a b + c, rounded once where the processor can
    # below(a, b): a < b; equal(a, b): a == b; anywhere(mask): whether it holds for some entry
    # where(mask, a, b): a where the mask holds, else b
    # square_root(x): rounded once
    # power_of_two(n + 1023 + 1.5 2^52): 2^n for a whole number n
    first, load, store, zeros = _first, _load, _store, _zeros
    multiply_add, below, where, power_of_two = _multiply_add, _below, _where, _power_of_two
    equal, anywhere, square_root = _equal, _anywhere, _square_root
