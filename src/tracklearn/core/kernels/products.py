"""8-bit products at the processor's pace: blocks of sums and of comparisons, by its instruction for them.

`vpdpbusd` multiplies unsigned by signed bytes, 64 at a time (32 without AVX-512), and adds them in fours to
lanes of 32 bits. A panel holds two registers of rows, four bytes of each after the other,
`panel[block, c // 4, row, c % 4]`: one load has four numbers of as many rows as there are lanes, and no sum
goes across lanes. Some rows of one panel are taken with all of another, and their sums stay in registers from
the first byte to the comparison.

Compiled by numba; LLVM has an intrinsic for the instruction and chooses the registers. Where the processor
has no such instruction `available` is False and nothing here may be called: LLVM would end the process.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core.registry import cpu_target
from numba.extending import intrinsic


def _lanes() -> int:
    """Lanes of the instruction on the processor that numba compiles for, 0 where it has none."""
    _, _, named = cpu_target.target_context.codegen().magic_tuple()
    features = set(named.split(","))
    if {"+avx512vnni", "+avx512bw", "+avx512vl"} <= features:
        return 16
    return 8 if "+avxvnni" in features else 0


available = _lanes() > 0
_LANES = _lanes() or 16
COLUMNS = 2 * _LANES  # rows of a panel
LANES = _LANES
ROWS = _LANES // 2  # of a block: so the sums leave registers for what they are made of
_INSTRUCTION = f"llvm.x86.avx512.vpdpbusd.{32 * _LANES}"  # its name for both
_I32, _I64, _F32 = ir.IntType(32), ir.IntType(64), ir.FloatType()
_BITS = ir.IntType(_LANES)
_WHOLE, _REAL = ir.VectorType(_I32, _LANES), ir.VectorType(_F32, _LANES)
_HALVES = 2
_SUMS = 4  # of a single product, so that none waits for the one before
AT_ONCE = 4 * _LANES * _SUMS  # its numbers a step
_PANEL = 4 * COLUMNS  # bytes of four numbers of all rows
_SIGNS = ir.Constant(_WHOLE, [0x80808080 - (1 << 32)] * _LANES)  # flipped: c becomes c + 128, unsigned


def _instruction(builder: Any) -> Any:
    """vpdpbusd, declared in the module that is being written."""
    function = builder.module.globals.get(_INSTRUCTION)
    if function is None:
        kind = ir.FunctionType(_WHOLE, [_WHOLE, _WHOLE, _WHOLE])
        function = ir.Function(builder.module, kind, _INSTRUCTION)
    return function


class _Block:
    """One block being written: its sums, after all bytes.

    Args:
        builder: of the function.
        near: address of the first row's bytes in its panel. far: of the other panel.
        n_steps: of four bytes. start: address of the ROWS int32 that the sums of each row start from.
    """

    def __init__(self, builder: Any, near: Any, far: Any, n_steps: Any, start: Any) -> None:
        self.builder = builder
        function = _instruction(builder)
        begin = [self.spread(self.load(start, 4 * row, _I32), _I32) for row in range(ROWS)]
        before = builder.block
        step, after = builder.append_basic_block("step"), builder.append_basic_block("after")
        builder.branch(step)
        builder.position_at_end(step)
        number = builder.phi(_I64)
        number.add_incoming(ir.Constant(_I64, 0), before)
        sums = [builder.phi(_WHOLE) for _ in range(ROWS * _HALVES)]
        for at, phi in enumerate(sums):
            phi.add_incoming(begin[at // _HALVES], before)
        offset = builder.mul(number, ir.Constant(_I64, _PANEL))
        there, here = builder.add(far, offset), builder.add(near, offset)
        columns = [
            builder.xor(self.load(there, 4 * _LANES * half, _WHOLE, align=4 * _LANES), _SIGNS)
            for half in range(_HALVES)
        ]
        added = []
        for row in range(ROWS):
            four = self.spread(self.load(here, 4 * row, _I32), _I32)
            added += [
                builder.call(function, [sums[_HALVES * row + half], columns[half], four])
                for half in range(_HALVES)
            ]
        following = builder.add(number, ir.Constant(_I64, 1))
        number.add_incoming(following, step)
        for phi, value in zip(sums, added, strict=True):
            phi.add_incoming(value, step)
        builder.cbranch(builder.icmp_signed("<", following, n_steps), step, after)
        builder.position_at_end(after)
        self.sums = added

    def load(self, address: Any, offset: int, kind: ir.Type, align: int = 4) -> Any:
        """What lies at an address."""
        loaded = self.builder.load(self._pointer(address, offset, kind), typ=kind)
        loaded.align = align
        return loaded

    def store(self, value: Any, address: Any, offset: Any, align: int = 4) -> None:
        """Write to an address; `offset` is a number or a value."""
        if not isinstance(offset, int):
            address, offset = self.builder.add(address, offset), 0
        self.builder.store(value, self._pointer(address, offset, value.type)).align = align

    def spread(self, value: Any, kind: ir.Type) -> Any:
        """The same number in every lane."""
        vector = ir.VectorType(kind, _LANES)
        empty = ir.Constant(vector, ir.Undefined)
        first = self.builder.insert_element(empty, value, ir.Constant(_I32, 0))
        return self.builder.shuffle_vector(first, empty, ir.Constant(_WHOLE, [0] * _LANES))

    def _pointer(self, address: Any, offset: int, kind: ir.Type) -> Any:
        if offset:
            address = self.builder.add(address, ir.Constant(_I64, offset))
        return self.builder.inttoptr(address, kind.as_pointer())


def _reached(
    _: Any, near: Any, far: Any, n_steps: Any, start: Any, near_scale: Any, near_least: Any, far_scale: Any,
    far_least: Any, values: Any, out: Any, stride: Any,
) -> Any:  # fmt: skip
    """Writes the similarities of ROWS rows with COLUMNS others, and which of them reach the floor of either.

    value[r, c] = Σ · near_scale[r] · far_scale[c] in float32; bit c of out[r] (uint32) says that it is at
    least near_least[r] or far_least[c].

    All are addresses or numbers: near, of the first row's first four bytes in its panel (those of row r lie
    4 r further); far, of the other panel, at a multiple of 64; n_steps, the width of a row / 4; start, of
    int32, −128 times the sum of each of the first rows, for the others are read as c + 128; scales and
    floors, of float32; values and out, where to write; stride, bytes from one line of `out` to the next, of
    which those of `values` lie COLUMNS apart.
    """

    def write(context: Any, builder: Any, _signature: Any, given: Any) -> Any:
        near, far, n_steps, start, near_scale, near_least, far_scale, far_least, values, out, stride = given
        block = _Block(builder, near, far, n_steps, start)
        of_column = [block.load(far_scale, 4 * _LANES * half, _REAL) for half in range(_HALVES)]
        least = [block.load(far_least, 4 * _LANES * half, _REAL) for half in range(_HALVES)]
        for row in range(ROWS):
            of_row = block.spread(block.load(near_scale, 4 * row, _F32), _F32)
            wanted = block.spread(block.load(near_least, 4 * row, _F32), _F32)
            word = ir.Constant(_I32, 0)
            line = builder.add(values, builder.mul(stride, ir.Constant(_I64, COLUMNS * row)))
            for half in range(_HALVES):
                value = builder.sitofp(block.sums[_HALVES * row + half], _REAL)
                value = builder.fmul(value, builder.fmul(of_column[half], of_row))
                block.store(value, line, 4 * _LANES * half)
                hit = builder.or_(
                    builder.fcmp_ordered(">=", value, wanted), builder.fcmp_ordered(">=", value, least[half])
                )
                bits = builder.zext(builder.bitcast(hit, _BITS), _I32)
                word = builder.or_(word, builder.shl(bits, ir.Constant(_I32, _LANES * half)))
            block.store(word, out, builder.mul(stride, ir.Constant(_I64, row)))
        return context.get_dummy_value()

    return types.void(*(types.intp,) * 11), write


def _product(_: Any, near: Any, far: Any, n_steps: Any, start: Any) -> Any:
    """start + Σ of the products of the 8-bit numbers at `near` with those at `far`, read as c + 128; int32.

    Both stand one after the other, AT_ONCE of them to a step.
    """

    def write(_context: Any, builder: Any, _signature: Any, given: Any) -> Any:
        near, far, n_steps, start = given
        function = _instruction(builder)
        before = builder.block
        step, after = builder.append_basic_block("step"), builder.append_basic_block("after")
        builder.branch(step)
        builder.position_at_end(step)
        number = builder.phi(_I64)
        number.add_incoming(ir.Constant(_I64, 0), before)
        sums = [builder.phi(_WHOLE) for _ in range(_SUMS)]
        added = []
        for part, total in enumerate(sums):
            total.add_incoming(ir.Constant(_WHOLE, [0] * _LANES), before)
            offset = builder.mul(number, ir.Constant(_I64, AT_ONCE))
            offset = builder.add(offset, ir.Constant(_I64, 4 * _LANES * part))
            one, other = (
                builder.load(builder.inttoptr(builder.add(at, offset), _WHOLE.as_pointer()), typ=_WHOLE)
                for at in (near, far)
            )
            one.align = other.align = 4
            added.append(builder.call(function, [total, builder.xor(other, _SIGNS), one]))
        following = builder.add(number, ir.Constant(_I64, 1))
        number.add_incoming(following, step)
        for total, value in zip(sums, added, strict=True):
            total.add_incoming(value, step)
        builder.cbranch(builder.icmp_signed("<", following, n_steps), step, after)
        builder.position_at_end(after)
        all_of = added[0]
        for value in added[1:]:
            all_of = builder.add(all_of, value)
        width = _LANES
        while width > 1:  # the upper half onto the lower one
            width //= 2
            halves = [
                builder.shuffle_vector(
                    all_of, all_of, ir.Constant(ir.VectorType(_I32, width), list(range(first, first + width)))
                )
                for first in (0, width)
            ]
            all_of = builder.add(*halves)
        return builder.add(start, builder.extract_element(all_of, ir.Constant(_I32, 0)))

    return types.int32(types.intp, types.intp, types.intp, types.int32), write


def _trailing_zeros(_: Any, number: Any) -> Any:
    """Zeros below the lowest bit of a uint32 that has one."""

    def write(_context: Any, builder: Any, _signature: Any, given: Any) -> Any:
        return builder.zext(builder.cttz(given[0], ir.Constant(ir.IntType(1), 1)), _I64)

    return types.int64(types.uint32), write


def _butterfly(_: Any, one: Any, other: Any) -> Any:
    """LANES float32 at `one` become their sums with those at `other`, and these the differences."""

    def write(context: Any, builder: Any, _signature: Any, given: Any) -> Any:
        places = [builder.inttoptr(address, _REAL.as_pointer()) for address in given]
        values = [builder.load(place, typ=_REAL) for place in places]
        results = builder.fadd(*values), builder.fsub(*values)
        stored = [builder.store(value, place) for value, place in zip(results, places, strict=True)]
        for access in (*values, *stored):
            access.align = 4
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), write


butterfly: Any = intrinsic(_butterfly)
product: Any = intrinsic(_product)
reached: Any = intrinsic(_reached)
trailing_zeros: Any = intrinsic(_trailing_zeros)
