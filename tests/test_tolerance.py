"""The rule lets rounding pass and nothing else, and the levels of `make portable` are real."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
import torch

from tests import portable
from tests.tolerance import LARGEST, apart, close

FAULTS = {
    "a wrong value": (torch.tensor([1.0, 2.0]), [1.0, 2.00001], "largest error 1e-05 at \\(1,\\)"),
    "another shape": (torch.ones(2), torch.ones(3), "shape \\(2,\\), not \\(3,\\)"),
    "another dtype": (torch.ones(2).double(), torch.ones(2), "float64, not torch.float32"),
    "not a number": (torch.tensor([float("nan")]), [1.0], "largest error inf"),
    "infinity": (torch.tensor([float("inf")]), [1.0], "largest error inf"),
    "anything beside zero": (torch.tensor([1e-30]), [0.0], "0 allowed"),
}


@pytest.fixture(autouse=True)
def untouched_record() -> Iterator[None]:
    """What is wrong on purpose is not the largest error of the run."""
    before = LARGEST.share, LARGEST.test
    yield
    LARGEST.share, LARGEST.test = before


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named(name: str) -> None:
    actual, expected, words = FAULTS[name]
    with pytest.raises(AssertionError, match=words):
        close(actual, expected)


@pytest.mark.parametrize("terms", [10, 1000, 100_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_order_of_a_sum_passes_and_a_term_too_few_does_not(
    terms: int, dtype: torch.dtype
) -> None:
    values = torch.randn(8, terms, dtype=dtype, generator=torch.Generator().manual_seed(terms))
    exact = values.double().sum(1)
    one_by_one = torch.zeros(8, dtype=dtype)
    for column in values.T:
        one_by_one += column
    magnitude = float(values.double().square().sum(1).sqrt().max())  # of the partial sums
    close(one_by_one, exact, terms=terms, scale=magnitude)
    with pytest.raises(AssertionError):
        close(one_by_one - values[:, 0], exact, terms=terms, scale=magnitude)


def test_half_precision_is_summed_in_float32() -> None:
    rows = torch.randn(4, 4096, generator=torch.Generator().manual_seed(0)).bfloat16()
    sums = rows.float().sum(1).bfloat16()
    close(sums, rows.double().sum(1), terms=4096)
    with pytest.raises(AssertionError):
        close(sums * 1.05, rows.double().sum(1), terms=4096)


def test_scores_that_rounding_could_swap_are_no_ground_for_a_choice() -> None:
    apart(torch.tensor([0.3, 0.1, 0.2]), [0, 2])
    apart(torch.tensor([0.3, 0.1]), [0, 1])
    with pytest.raises(AssertionError, match="rounding moves"):
        apart(torch.tensor([0.3, 0.1, 0.3]), [0])


def test_the_variables_of_a_level_take_effect() -> None:
    own, lowest = portable.probe({}), portable.LEVELS["default"]
    if portable.lacks(own["torch"], lowest):
        pytest.skip(f"this machine computes as {own['torch']}")
    assert portable.faults(lowest, portable.probe(lowest.environment)) == []
    assert bool(portable.faults(lowest, own)) == (own["torch"] != "DEFAULT")


def test_a_level_that_the_machine_lacks_is_not_run_as_another(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(portable, "probe", lambda environment: {"torch": "AVX2"})
    monkeypatch.setattr(subprocess, "Popen", None)
    monkeypatch.setattr("sys.argv", ["portable", "--levels", "avx512"])
    assert portable.main() == 0
    assert "avx512   skipped: this machine computes at most as AVX2" in capsys.readouterr().out


def test_the_numeric_tests_are_found() -> None:
    names = {path.rpartition("/")[2] for path in portable.numeric_files()}
    assert {"test_oracle.py", "test_llava_onevision.py", "test_internvl.py"} <= names
    assert not names & portable.LEFT_OUT
