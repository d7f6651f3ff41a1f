"""The first few lanes of a vector, read and written.

Where the processor has mask registers it is one instruction. Elsewhere masked accesses are slow, on AMD's by microcode, and to bytes and
with NEON by a branch for each lane; plain accesses do the same. `python benchmarks/partial.py` times both.
"""

from llvmlite import ir
from numba.core import cgutils

from fastconv.kernels.processor import MASK_REGISTERS
from fastconv.kernels.vector_type import I32, call, first_lanes, suffix

PAGE = 4096
"""Bytes within which memory is readable as a whole or not at all; pages of larger size consist of such."""


def load_first(builder, pointer, count, fill, align):
    """The first `count` lanes of what a vector pointer points to, the others from the vector `fill`; none for 0 or less, anywhere.

    Without mask registers the whole vector is read, of which the lanes beyond `count` are dropped, unless it lies across two pages, the
    second of which might not be there; and where no lane is wanted, what is read and dropped lies on the stack.
    """
    vector = pointer.type.pointee
    mask = first_lanes(builder, count, vector.count)

    def masked():
        return call(builder, f"llvm.masked.load.{suffix(vector)}.p0", vector, [pointer, ir.Constant(I32, align), mask, fill])

    if MASK_REGISTERS:
        return masked()
    result, nowhere = cgutils.alloca_once(builder, vector), cgutils.alloca_once(builder, vector)
    pointer = builder.select(builder.icmp_signed(">", count, ir.Constant(count.type, 0)), pointer, nowhere)
    address = builder.ptrtoint(pointer, ir.IntType(64))
    first = builder.and_(address, ir.Constant(address.type, PAGE - 1))
    one_page = builder.icmp_unsigned("<=", first, ir.Constant(address.type, PAGE - align * vector.count))
    all_lanes = builder.icmp_signed(">=", count, ir.Constant(count.type, vector.count))
    with builder.if_else(builder.or_(all_lanes, one_page), likely=True) as (whole, part):
        with whole:
            builder.store(builder.select(mask, builder.load(pointer, align=align), fill), result)
        with part:
            builder.store(masked(), result)
    return builder.load(result)


def store_first(builder, values, pointers, count, align):
    """The first `count` lanes of each of `values`, all of one type, to the vector pointer that belongs to it; none for 0 or less.

    Without mask registers: all of them, or a half, a quarter, ..., as the bits of `count` say.
    """
    lanes = values[0].type.count
    if MASK_REGISTERS:
        mask, name = first_lanes(builder, count, lanes), f"llvm.masked.store.{suffix(values[0].type)}.p0"
        for value, pointer in zip(values, pointers, strict=True):
            call(builder, name, ir.VoidType(), [value, pointer, ir.Constant(I32, align), mask])
        return

    def number(n):
        return ir.Constant(count.type, n)

    with builder.if_else(builder.icmp_signed(">=", count, number(lanes)), likely=True) as (whole, part):
        with whole:
            for value, pointer in zip(values, pointers, strict=True):
                builder.store(value, pointer, align=align)
        with part, builder.if_then(builder.icmp_signed(">", count, number(0))):
            size, offset = lanes // 2, number(0)
            while size:
                taken = builder.icmp_signed("!=", builder.and_(count, number(size)), number(0))
                low, high = ([_lanes(builder, value, start, size) for value in values] for start in (0, size))
                with builder.if_then(taken):
                    for value, pointer in zip(low, pointers, strict=True):
                        element = builder.gep(builder.bitcast(pointer, value.type.element.as_pointer()), [offset])
                        builder.store(value, builder.bitcast(element, value.type.as_pointer()), align=align)
                values = [builder.select(taken, h, v) for h, v in zip(high, low, strict=True)]
                offset = builder.add(offset, builder.select(taken, number(size), number(0)))
                size //= 2


def _lanes(builder, value, start, size):
    """Lanes start .. start + size of a vector."""
    mask = ir.Constant(ir.VectorType(I32, size), list(range(start, start + size)))
    return builder.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), mask)
