"""Names and counts of factorizations; the functions' examples are tested as well."""

from __future__ import annotations

import pytest

from memplan.compiler.hardware.linear_algebra import factorization, factorization_flops
from memplan.compiler.ir import Shape


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("lapack_dpotrf_ffi", "cholesky"),
        ("lapack_zgesdd_ffi", "svd"),
        ("cusolver_getrf_ffi", "lu"),
        ("cublas_getrf_batched_ffi", "lu"),
        ("cusolver_syevd", "eigh"),
        ("hipsolver_geqrf_ffi", "qr"),
        ("__cusolver$cholesky", "cholesky"),
        ("householder_product", "qr"),
        ("Eigh", "eigh"),
        ("potrf2", ""),
        ("eigh_of_mine", ""),
        ("lapack_strsm_ffi", ""),
    ],
)
def test_names(name: str, kind: str) -> None:
    assert factorization(name) == kind


def test_counts() -> None:
    assert factorization_flops("lu", Shape("f32", (12, 12))) == pytest.approx(2 / 3 * 12**3)
    assert factorization_flops("lu", Shape("f32", (12, 6))) == factorization_flops("lu", Shape("f32", (6, 12)))
    assert factorization_flops("qr", Shape("f32", (12, 12))) == pytest.approx(4 / 3 * 12**3)
    assert factorization_flops("cholesky", Shape("f32", (5, 7, 6, 6))) == pytest.approx(35 * 6**3 / 3)
    assert factorization_flops("svd", Shape("f32", (6, 12))) == factorization_flops("svd", Shape("f32", (12, 6)))
    complex_numbers = factorization_flops("eigh", Shape("c64", (6, 6)))
    assert complex_numbers == 4 * factorization_flops("eigh", Shape("f32", (6, 6)))
