"""How much arithmetic matrix factorizations take (Golub and Van Loan, Matrix Computations, 4th edition).

    cholesky        n³/3                    section 4.2
    lu              n² (m - n/3)            section 3.2, m the larger side, n the smaller one
    qr, householder 2 n² (m - n/3)          section 5.2: the factors, or the orthogonal matrix made of them
    eigh            9 n³                    section 8.3, with vectors
    svd             4 m² n + 8 m n² + 9 n³  section 8.6, with vectors
    eig             25 n³                   section 7.5, with vectors; a Schur form takes as much
    tridiagonal     4/3 n³                  section 8.3; a Hessenberg form, 10/3 n³, section 7.4

The iterative ones depend on the values: theirs are typical counts.
"""

from __future__ import annotations

import re

from memplan.compiler.ir import Shape

# JAX's primitives, and what the libraries' functions and the TPU compiler's calls are called.
_KINDS = {
    "cholesky": "cholesky", "potrf": "cholesky", "Cholesky": "cholesky",
    "lu": "lu", "getrf": "lu", "LuDecomposition": "lu",
    "qr": "qr", "geqrf": "qr", "geqp3": "qr", "Qr": "qr",
    "householder_product": "qr", "orgqr": "qr", "ungqr": "qr", "ProductOfElementaryHouseholderReflectors": "qr",
    "eigh": "eigh", "syevd": "eigh", "syevj": "eigh", "heevd": "eigh", "heevj": "eigh", "Eigh": "eigh",
    "svd": "svd", "gesdd": "svd", "gesvd": "svd", "gesvdj": "svd", "gesvdp": "svd",
    "eig": "eig", "geev": "eig", "schur": "eig", "gees": "eig",
    "tridiagonal": "tridiagonal", "sytrd": "tridiagonal", "hetrd": "tridiagonal",
    "hessenberg": "hessenberg", "gehrd": "hessenberg",
}  # fmt: skip
# lapack_spotrf_ffi, lapack_cgesdd, cusolver_getrf_ffi, cublas_getrf_batched_ffi, __cusolver$cholesky.
_LIBRARY = re.compile(
    r"(?:lapack_[sdcz]|(?:cu|hip|roc)(?:solver|blas)(?:dn)?_|__cusolver\$)([a-z0-9]+)(?:_.*)?", re.DOTALL
)
# Real operations in the multiply-adds of complex numbers, over those of real ones.
_COMPLEX = 4.0


def factorization(name: str) -> str:
    """Returns what kind of factorization a primitive or a custom call does; "" if none.

    >>> factorization("lapack_spotrf_ffi"), factorization("eigh"), factorization("lapack_dtrsm_ffi")
    ('cholesky', 'eigh', '')
    """
    found = _LIBRARY.fullmatch(name)
    return _KINDS.get(found[1] if found else name, "")


def factorization_flops(kind: str, matrix: Shape) -> float:
    """Returns the operations of a factorization of each matrix of a batch.

    Args:
      kind: as `factorization` returns it.
      matrix: `[…, rows, columns]`.
    """
    *batch, rows, columns = matrix.dims
    m, n = float(max(rows, columns)), float(min(rows, columns))
    flops = {
        "cholesky": n**3 / 3.0,
        "lu": n * n * (m - n / 3.0),
        "qr": 2.0 * n * n * (m - n / 3.0),
        "eigh": 9.0 * n**3,
        "svd": 4.0 * m * m * n + 8.0 * m * n * n + 9.0 * n**3,
        "eig": 25.0 * n**3,
        "tridiagonal": 4.0 / 3.0 * n**3,
        "hessenberg": 10.0 / 3.0 * n**3,
    }[kind]
    for size in batch:
        flops *= size
    return flops * (_COMPLEX if matrix.dtype in ("c64", "c128") else 1.0)
