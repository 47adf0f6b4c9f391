"""The driver API by ctypes, as a program in a tenant would find it: by the name libcuda.so.1."""

import ctypes
from ctypes import byref, c_int, c_size_t, c_uint64, c_void_p

cuda = ctypes.CDLL("libcuda.so.1")
MIB = 1 << 20
GIB = 1 << 30
OUT_OF_MEMORY = 2


def check(code: int) -> None:
    """Stop at an error of the driver."""
    if code != 0:
        raise RuntimeError(code)


def open_card() -> None:
    """Initialise, and make the primary context current."""
    context = c_void_p()
    check(cuda.cuInit(0))
    check(cuda.cuDevicePrimaryCtxRetain(byref(context), 0))
    check(cuda.cuCtxSetCurrent(context))


def alloc(n_bytes: int) -> int | None:
    """An address, or None when out of memory."""
    at = c_uint64()
    code = cuda.cuMemAlloc_v2(byref(at), c_size_t(n_bytes))
    if code == OUT_OF_MEMORY:
        return None
    check(code)
    return at.value


def free(at: int) -> None:
    """Free an address."""
    check(cuda.cuMemFree_v2(c_uint64(at)))


def mem_info() -> tuple[int, int]:
    """Free and total bytes."""
    free_bytes, total = c_size_t(), c_size_t()
    check(cuda.cuMemGetInfo_v2(byref(free_bytes), byref(total)))
    return free_bytes.value, total.value


def proc(name: str, version: int = 13000, flags: int = 0) -> int:
    """Address that cuGetProcAddress_v2 gives."""
    at, status = c_void_p(), c_int()
    check(cuda.cuGetProcAddress_v2(name.encode(), byref(at), version, c_uint64(flags), byref(status)))
    return at.value or 0


def address_of(name: str) -> int:
    """Address of an exported function."""
    return ctypes.cast(getattr(cuda, name), c_void_p).value or 0
