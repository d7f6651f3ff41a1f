"""How far processors are from one another: the time in which a line of memory goes from one to the other and back.

Some 50 ns where they share a cache, several times that where they do not: then what a thread writes and another reads takes longer.
A virtual machine's processors may be moved from one to the other at any time.
"""

import os
import threading
import time

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic

TURNS = 2000


@intrinsic
def load_atomic(typingctx, array):
    """array[0] of an int64 array, read from memory each time."""

    def codegen(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.load_atomic(data, "acquire", 8)

    return types.int64(array), codegen


@intrinsic
def store_atomic(typingctx, array, value):
    """array[0] = value, seen by other threads at once."""

    def codegen(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        builder.store_atomic(args[1], data, "release", 8)
        return context.get_dummy_value()

    return types.void(array, types.int64), codegen


@numba.njit(nogil=True)
def play(turn, player, turns):
    """Counts turn[0] up whenever it is this player's turn, who is 0 or 1, `turns` times."""
    for k in range(turns):
        while load_atomic(turn) != 2 * k + player:
            pass
        store_atomic(turn, 2 * k + player + 1)


def nanoseconds(first, second, turns=TURNS):
    """The time in ns of one line's way from processor `first` to processor `second` and back, as the system counts them.

    OSError where the system does not let threads choose.
    """
    turn, start, took = np.zeros(16, np.int64), threading.Barrier(2, timeout=10), []
    os.sched_setaffinity(0, os.sched_getaffinity(0))
    play(turn, 0, 0)  # compiles

    def player(k, processor):
        os.sched_setaffinity(0, {processor})
        start.wait()
        began = time.perf_counter()
        play(turn, k, turns)
        took.append(time.perf_counter() - began)

    players = [threading.Thread(target=player, args=pair) for pair in enumerate((first, second))]
    for thread in players:
        thread.start()
    for thread in players:
        thread.join()
    return min(took) / turns * 1e9  # the other one waited until both were there


def farthest(threads):
    """The longest way from the first processor to another; 0 unless there are as many threads as processors, else nobody knows theirs."""
    if threads == 1 or not hasattr(os, "sched_getaffinity") or threads != len(os.sched_getaffinity(0)):
        return 0.0
    first, *others = sorted(os.sched_getaffinity(0))
    try:
        return max(min(nanoseconds(first, other) for _ in range(2)) for other in others)
    except OSError:
        return 0.0


if __name__ == "__main__":
    processors = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(processors) < 2:
        print("There are no two processors that a thread could be sent to.")
    for other in processors[1:]:
        print(f"{processors[0]} and {other}: {nanoseconds(processors[0], other):.0f} ns")
