"""BLAS and LAPACK that let other threads run: the routines that scipy exports to compiled code, called by address.

The wrappers that scipy has for Python keep other threads waiting, and numpy has none for these. Arrays are float64 and
in C's order, which LAPACK sees transposed: a symmetric matrix stays itself, its upper triangle is LAPACK's lower one.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
from scipy.linalg import cython_blas, cython_lapack

Array = np.ndarray[Any, Any]
LOWER, UPPER = b"U", b"L"
"""Of an array in C's order, as LAPACK calls them."""
WORK = 66
"""Rows of workspace: dsytrd's blocks are of 64 at most."""


def _routine(module: ModuleType, name: str) -> Callable[..., None]:
    """A routine by the address under which the module exports it; all its arguments are pointers."""
    capsule = module.__pyx_capi__[name]
    signature = _capsule("GetName", ctypes.c_char_p, capsule)
    if not signature.startswith(b"void (") or b"int *" not in signature:
        raise ImportError(f"{module.__name__}.{name}: {signature!r} is not what this was written for")
    arguments = [ctypes.c_void_p] * (signature.count(b",") + 1)
    address = _capsule("GetPointer", ctypes.c_void_p, capsule, signature)
    return ctypes.CFUNCTYPE(None, *arguments)(address)


def _capsule(function: str, returned: Any, capsule: object, *names: bytes) -> Any:
    prototype = ctypes.PYFUNCTYPE(returned, ctypes.py_object, *[ctypes.c_char_p] * len(names))
    return prototype((f"PyCapsule_{function}", ctypes.pythonapi))(capsule, *names)


_dsyrk = _routine(cython_blas, "dsyrk")
_dpotrf, _dsygst, _dsyev = (_routine(cython_lapack, name) for name in ("dpotrf", "dsygst", "dsyev"))


def add_products(sums: Array, x: Array) -> None:
    """sums += x^T x of (n, D) rows, in the upper triangle of (D, D) sums."""
    width, one = _int(len(sums)), _real(1)
    _check(sums, (x.shape[1],) * 2)
    _check(x, x.shape)
    _dsyrk(UPPER, b"N", width, _int(len(x)), one, x.ctypes.data, width, one, sums.ctypes.data, width)


def cholesky(matrix: Array) -> Array | None:
    """L with L L^T = a symmetric (D, D) matrix, in the lower triangle; None where it is not positive definite."""
    factor, info = matrix.copy(), ctypes.c_int()
    _check(factor, matrix.shape)
    _dpotrf(LOWER, _int(len(factor)), factor.ctypes.data, _int(len(factor)), ctypes.byref(info))
    return factor if info.value == 0 else None


def reduced(matrix: Array, factor: Array) -> Array:
    """L^T B L in the lower triangle, of a symmetric matrix B and a factor L: half the products of a multiplication."""
    result, size, info = matrix.copy(), _int(len(matrix)), ctypes.c_int()
    _check(result, factor.shape)
    _dsygst(_int(2), LOWER, size, result.ctypes.data, size, factor.ctypes.data, size, ctypes.byref(info))
    assert info.value == 0, info
    return result


def eigenvalues(matrix: Array) -> Array:
    """Of a symmetric matrix by its lower triangle, ascending; the matrix is used up.

    Raises:
        numpy.linalg.LinAlgError: they were not found.
    """
    _check(matrix, matrix.shape)
    size, info = _int(len(matrix)), ctypes.c_int()
    values, work = np.empty(len(matrix)), np.empty(WORK * len(matrix))
    pointers = (matrix.ctypes.data, size, values.ctypes.data, work.ctypes.data, _int(len(work)))
    _dsyev(b"N", LOWER, size, *pointers, ctypes.byref(info))
    if info.value:
        raise np.linalg.LinAlgError("eigenvalues did not converge")
    return values


def _check(array: Array, shape: tuple[int, ...]) -> None:
    """What a routine that is called by address cannot."""
    assert array.dtype == np.float64, array.dtype
    assert array.shape == shape, array.shape
    assert array.flags.c_contiguous


def _int(value: int) -> Any:
    return ctypes.byref(ctypes.c_int(value))


def _real(value: float) -> Any:
    return ctypes.byref(ctypes.c_double(value))
