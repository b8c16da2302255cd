"""16-bit weights learn as 32-bit ones do, and what the optimiser holds survives a file."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from spark_rl.learning.optimizer import AdamWOnCopies, adamw, trained


def layer(dtype: torch.dtype) -> nn.Linear:
    torch.manual_seed(0)
    made = nn.Linear(8, 8)
    with torch.no_grad():
        for p in made.parameters():
            p.copy_(p.bfloat16())  # both precisions begin with the same numbers
    return made.to(dtype)


def steps(made: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> None:
    for _ in range(count):
        optimizer.zero_grad(set_to_none=True)
        for part in (1.0, 2.0):  # two micro-batches
            (made(torch.full((1, 8), part, dtype=next(made.parameters()).dtype)) ** 2).sum().backward()
        optimizer.step()


def test_small_steps_add_up():
    """A hundred steps of 1e-6 move a 32-bit copy by 1e-4, and plain AdamW in 16 bits by nothing at all."""
    half, whole, lost = layer(torch.bfloat16), layer(torch.float32), layer(torch.bfloat16)
    optimizer = adamw(half, lr=1e-6, weight_decay=0.0)
    assert type(optimizer) is AdamWOnCopies
    start = lost.weight.detach().clone()
    steps(half, optimizer, 100)
    steps(whole, adamw(whole, lr=1e-6, weight_decay=0.0), 100)
    steps(lost, torch.optim.AdamW(lost.parameters(), lr=1e-6, weight_decay=0.0), 100)
    big = start.abs() > 0.02
    assert torch.equal(lost.weight[big], start[big])
    copy = trained(optimizer)[0]
    assert torch.allclose(copy, whole.weight, atol=3e-6)
    assert float((copy.detach() - start.float()).abs().mean()) == pytest.approx(1e-4, rel=0.05)
    assert torch.equal(half.weight, copy.bfloat16())


def test_gradients_of_micro_batches_add_up_in_32_bits_and_leave_the_weights():
    half = layer(torch.bfloat16)
    optimizer = adamw(half, lr=0.0)
    (half(torch.ones(1, 8).bfloat16()) ** 2).sum().backward()
    assert half.weight.grad is None
    first = trained(optimizer)[0].grad
    assert first is not None
    assert first.dtype == torch.float32
    first = first.clone()
    (half(torch.ones(1, 8).bfloat16()) ** 2).sum().backward()
    assert torch.equal(trained(optimizer)[0].grad, 2 * first)  # type: ignore[arg-type]


def test_going_on_from_a_file_gives_the_same_bits(tmp_path):
    one, two = layer(torch.bfloat16), layer(torch.bfloat16)
    first = adamw(one, lr=1e-5)
    steps(one, first, 3)
    torch.save({"weights": one.state_dict(), "optimizer": first.state_dict()}, tmp_path / "x.pt")
    saved = torch.load(tmp_path / "x.pt", weights_only=True)
    two.load_state_dict(saved["weights"])
    second = adamw(two, lr=1e-5)
    second.load_state_dict(saved["optimizer"])
    steps(one, first, 3)
    steps(two, second, 3)
    assert all(torch.equal(a, b) for a, b in zip(trained(first), trained(second), strict=True))
    assert torch.equal(one.weight, two.weight)


def test_a_32_bit_model_gets_plain_adamw():
    assert type(adamw(layer(torch.float32), lr=1e-3)) is torch.optim.AdamW
