"""A fingerprint tells models apart by names, shapes, dtypes and values."""

from __future__ import annotations

import torch
from torch import Tensor

from vtc_cli.store.fingerprint import SAMPLES, fingerprint


def parameters() -> list[tuple[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        ("a.weight", torch.randn(40, 60, generator=generator)),
        ("a.bias", torch.randn(7, generator=generator)),
        ("scale", torch.tensor(2.0)),
    ]


def test_it_is_the_same_for_the_same_weights() -> None:
    assert fingerprint(parameters()) == fingerprint(parameters())
    assert len(fingerprint(parameters())) == 64


def test_each_difference_shows() -> None:
    plain = parameters()
    moved = [(name, value + 1e-4) for name, value in plain]
    last = [(name, value.clone()) for name, value in plain]
    last[1][1][6] += 1e-3
    scalar = [*plain[:2], ("scale", torch.tensor(2.5))]
    renamed = [("b.weight", plain[0][1]), *plain[1:]]
    turned = [("a.weight", plain[0][1].reshape(60, 40)), *plain[1:]]
    half = [(name, value.bfloat16()) for name, value in plain]
    swapped = [plain[1], plain[0], plain[2]]
    all_of_them = [plain, moved, last, scalar, renamed, turned, half, swapped, plain[:2]]
    assert len({fingerprint(item) for item in all_of_them}) == len(all_of_them)


def test_a_large_parameter_is_sampled_from_end_to_end() -> None:
    """Of a million values some in the last hundredth count."""
    values = torch.zeros(1_000_000)
    plain = fingerprint([("w", values)])
    values[-10_000:] = 1.0
    assert fingerprint([("w", values)]) != plain
    assert values.shape[0] > SAMPLES


def test_a_view_counts_by_its_values() -> None:
    square = torch.arange(12.0).reshape(3, 4)
    assert fingerprint([("w", square.T)]) == fingerprint([("w", square.T.contiguous())])


def test_an_empty_parameter_is_no_trouble() -> None:
    assert fingerprint([("w", torch.zeros(0, 4))]) != fingerprint([("w", torch.zeros(0, 5))])
