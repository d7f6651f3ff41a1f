"""Functions compiled once, on their own, which kernels call by a symbol.

Numba optimises a device function anew inside every function that calls it, and makes machine code of all of it for each of the five modules
that a parallel kernel is made of. For a register tile that is 3 to 8 s a kernel, for the body of a loop 2 to 4 s.
"""

import hashlib
import inspect

import llvmlite
from numba.core import cgutils, types
from numba.extending import intrinsic

from fastconv.kernels.jit import aparts, dispatcher_of, prepared


def call_code(context, builder, callee, signature, values):
    """Emit a call of compiled code that returns nothing, of arguments of the types `signature`."""
    status, _ = context.call_conv.call_function(builder, callee, types.void, signature, values)
    with cgutils.if_unlikely(builder, status.is_error):
        context.call_conv.return_status_propagate(builder, status)


class _Apart:
    """Code of a function that returns nothing, by symbol: a piece for each signature, the types that it is for."""

    def __init__(self, function):
        self.name, self.compiled = f"{function.__module__}.{function.__name__}", {}
        self.dispatcher = dispatcher_of(function, "apart", no_cpython_wrapper=True, no_cfunc_wrapper=True)
        aparts[self.name] = self

    def prepare(self, signature):
        """The symbol of the code for `signature`, which is there from now on."""
        if signature not in self.compiled:
            symbol = f"{self.name}.{hashlib.sha256(str(signature).encode()).hexdigest()[:16]}"
            self.dispatcher.compile(signature)
            llvmlite.binding.add_symbol(symbol, self._address(signature))
            prepared[symbol] = self.name, signature
            self.compiled[signature] = symbol
        return self.compiled[signature]

    def _address(self, signature):
        compiled = self.dispatcher.overloads[signature]
        return compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)

    def emit(self, context, builder, signature, values):
        """Emit a call."""
        function_type = context.call_conv.get_function_type(types.void, signature)
        callee = cgutils.get_or_insert_function(builder.module, function_type, self.prepare(signature))
        call_code(context, builder, callee, signature, values)


def parameter_types(letters, dtype):
    """The types of parameters: "p" a pointer to elements, "n" a pointer to int32, "l" one to integers, "i" an integer."""
    kinds = {"p": types.CPointer(dtype), "n": types.CPointer(types.int32), "l": types.CPointer(types.intp), "i": types.intp}
    return tuple(kinds[letter] for letter in letters)


class Apart(_Apart):
    """A function of pointers to elements and of integers, for each dtype; `parameters` has a letter for each."""

    def __init__(self, function, parameters):
        super().__init__(function)
        self.parameters = parameters

    def signature(self, dtype):
        return parameter_types(self.parameters, dtype)

    def address(self, dtype):
        """The address of the code for `dtype`, one of Numba's, which is there from now on."""
        signature = self.signature(dtype)
        self.prepare(signature)
        return self._address(signature)

    def call(self, context, builder, dtype, arguments):
        """Emit a call with LLVM's pointers and integers."""
        self.emit(context, builder, self.signature(dtype), arguments)


def apart(function):
    """Decorator of a function that kernels call, such as the body of a parallel loop: once compiled for all of them. It returns nothing.

    A kernel passes ``np.int64(job)`` for prange's index, which is unsigned where the loop is parallel and would have it compiled again.
    """
    code = _Apart(function)

    def call(typingctx, *arguments):
        code.prepare(arguments)

        def codegen(context, builder, signature, values):
            code.emit(context, builder, signature.args, values)
            return context.get_dummy_value()

        return types.void(*arguments), codegen

    parameters = inspect.signature(function).parameters.values()
    call.__signature__ = inspect.Signature([inspect.Parameter("typingctx", inspect.Parameter.POSITIONAL_OR_KEYWORD), *parameters])
    return intrinsic(call)
