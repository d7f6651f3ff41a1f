"""Functions compiled once, on their own, which kernels call by a symbol.

Numba optimises a device function anew inside every function that calls it, and makes machine code of all of it for each of the five modules
that a parallel kernel is made of. For a register tile that is 3 to 8 s a kernel, for the body of a loop 2 to 4 s.
"""

import hashlib
import inspect

import llvmlite
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.ccallback import CFunc
from numba.extending import intrinsic

from fastconv.kernels.jit import KernelCache, aparts, dispatcher_of, prepared


class _Apart:
    """Code by symbol: one piece for each `key`, the types that it is for."""

    def __init__(self, function):
        self.function, self.name, self.compiled = function, f"{function.__module__}.{function.__name__}", {}
        aparts[self.name] = self

    def _compile(self, key):
        """Compile the code for `key`, or load it: (its address, what owns it). For subclasses to write."""
        raise NotImplementedError

    def prepare(self, key):
        """The symbol of the code for `key`, which is there from now on."""
        if key not in self.compiled:
            symbol = f"{self.name}.{hashlib.sha256(str(key).encode()).hexdigest()[:16]}"
            address, owner = self._compile(key)
            llvmlite.binding.add_symbol(symbol, address)
            prepared[symbol] = self.name, key
            self.compiled[key] = symbol, owner  # without which the code would be freed
        return self.compiled[key][0]


class Apart(_Apart):
    """A function of pointers to elements and of integers, returning nothing, for each dtype.

    `parameters` has a letter for each: "p" a pointer to elements, "n" a pointer to int32, "i" an integer.
    """

    def __init__(self, function, parameters):
        super().__init__(function)
        self.parameters = parameters

    def _compile(self, dtype):
        kinds = {"p": types.CPointer(dtype), "n": types.CPointer(types.int32), "i": types.intp}
        signature = tuple(kinds[letter] for letter in self.parameters), types.void
        callback = CFunc(self.function, signature, locals={}, options={"error_model": "numpy"})
        callback._cache = KernelCache(self.function, "apart")
        callback.compile()
        return callback.address, callback

    def call(self, builder, dtype, arguments):
        """Emit a call."""
        function_type = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
        builder.call(cgutils.get_or_insert_function(builder.module, function_type, self.prepare(dtype)), arguments)


class _Function(_Apart):
    """A function of whatever kernels have, returning nothing, for each signature."""

    def __init__(self, function):
        super().__init__(function)
        self.dispatcher = dispatcher_of(function, "job", no_cpython_wrapper=True, no_cfunc_wrapper=True)

    def _compile(self, signature):
        self.dispatcher.compile(signature)
        compiled = self.dispatcher.overloads[signature]
        return compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name), compiled


def apart(function):
    """Decorator of a function that kernels call, such as the body of a parallel loop: once compiled for all of them. It returns nothing.

    A kernel passes ``np.int64(job)`` for prange's index, which is unsigned where the loop is parallel and would have it compiled again.
    """
    code = _Function(function)

    def call(typingctx, *arguments):
        code.prepare(arguments)

        def codegen(context, builder, signature, values):
            convention = context.call_conv
            function_type = convention.get_function_type(types.void, signature.args)
            callee = cgutils.get_or_insert_function(builder.module, function_type, code.prepare(signature.args))
            status, _ = convention.call_function(builder, callee, types.void, signature.args, values)
            with cgutils.if_unlikely(builder, status.is_error):
                convention.return_status_propagate(builder, status)
            return context.get_dummy_value()

        return types.void(*arguments), codegen

    parameters = inspect.signature(function).parameters.values()
    call.__signature__ = inspect.Signature([inspect.Parameter("typingctx", inspect.Parameter.POSITIONAL_OR_KEYWORD), *parameters])
    return intrinsic(call)
