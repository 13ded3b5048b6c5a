"""Cases side by side, and the routines that let other threads run."""

import threading

import numpy as np
import pytest

from evaluator.metrics import lapack, threads
from evaluator.metrics.threads import one_thread, side_by_side


def symmetric(size, seed=0):
    x = np.random.default_rng(seed).normal(size=(3 * size, size))
    return x.T @ x / len(x)


def test_results_keep_the_order_of_their_cases(monkeypatch):
    monkeypatch.setattr(threads, "workers", lambda: 4)
    later = threading.Event()

    def work(number):
        if number == 0:
            assert later.wait(10)
        if number == 3:
            later.set()
        return number, threading.get_ident()

    found = list(side_by_side(work, zip(range(20))))
    assert [number for number, _ in found] == list(range(20))
    assert threading.get_ident() not in {thread for _, thread in found}


def test_cases_are_taken_while_they_are_needed(monkeypatch):
    """What a case is made from is at most two cases a thread behind."""
    monkeypatch.setattr(threads, "workers", lambda: 2)
    done = []
    behind = []

    def cases():
        for number in range(30):
            behind.append(number - len(done))
            yield (number,)

    for number in side_by_side(lambda number: number, cases()):
        done.append(number)
    assert max(behind) == 2 * 2 - 1


def test_an_error_ends_it_and_blas_has_its_threads_back():
    before = threads.workers()

    def work(number):
        assert threads.workers() == 1
        if number == 2:
            raise ValueError("the third")
        return number

    with pytest.raises(ValueError, match="the third"):
        list(side_by_side(work, zip(range(1000))))
    assert threads.workers() == before


def test_fewer_threads_where_blas_may_use_fewer():
    with one_thread():
        assert threads.workers() == 1
        assert list(side_by_side(lambda a, b: a + b, [(1, 2), (3, 4)])) == [3, 7]


@pytest.mark.parametrize("size", [1, 2, 3, 64, 131])
def test_routines_equal_numpys(size):
    a, b = symmetric(size), symmetric(size, seed=1)
    factor = lapack.cholesky(a)
    assert factor is not None
    np.testing.assert_allclose(np.tril(factor), np.linalg.cholesky(a), rtol=1e-10, atol=1e-12)
    product = lapack.reduced(b, factor)
    expected = np.linalg.cholesky(a).T @ b @ np.linalg.cholesky(a)
    np.testing.assert_allclose(np.tril(product), np.tril(expected), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(lapack.eigenvalues(product), np.linalg.eigvalsh(expected), rtol=1e-9, atol=1e-12)


def test_products_are_added_in_the_upper_triangle():
    x = np.random.default_rng(0).normal(size=(9, 5))
    sums = np.full((5, 5), 2.0)
    lapack.add_products(sums, x)
    np.testing.assert_allclose(np.triu(sums), np.triu(x.T @ x + 2), rtol=1e-12)
    assert (sums[np.tril_indices(5, -1)] == 2).all()


def test_what_is_not_positive_definite_has_no_factor():
    assert lapack.cholesky(np.diag([1.0, 0.0, 2.0])) is None


@pytest.mark.parametrize(
    "array",
    [np.eye(4, dtype=np.float32), np.asfortranarray(np.arange(16.0).reshape(4, 4)), np.zeros((4, 3))],
    ids=["float32", "another order", "not square"],
)
def test_memory_that_a_routine_would_misread_is_refused(array):
    with pytest.raises(AssertionError):
        lapack.add_products(array, np.ones((2, 4)))
