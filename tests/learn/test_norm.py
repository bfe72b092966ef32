import copy

import numpy as np
import pytest
import torch
from torch import nn

from tracklearn.learn.norm import IBN, BatchNorm1d, BatchNorm2d, chunk_sizes, set_group


def reference(x, sizes, weight, bias, eps):
    """Grouped batch norm by loops in float64, from the definition; also mean and variance of each chunk."""
    x = x.detach().double().numpy()
    out, means, variances, row = np.empty_like(x), [], [], 0
    for size in sizes:
        chunk = x[row : row + size]
        mean, variance = np.empty(x.shape[1]), np.empty(x.shape[1])
        for c in range(x.shape[1]):
            values = chunk[:, c]
            mean[c], variance[c] = values.mean(), values.var(ddof=1)
            scaled = (values - mean[c]) / np.sqrt(values.var() + eps)
            out[row : row + size, c] = scaled * weight[c].item() + bias[c].item()
        means.append(mean)
        variances.append(variance)
        row += size
    return out, np.mean(means, 0), np.mean(variances, 0)


def fresh(kind, width=5):
    norm = kind(width)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
        norm.bias.uniform_(-1, 1)
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
    return norm


@pytest.mark.parametrize(
    ("n", "group", "sizes"),
    [
        (64, 16, [16] * 4),
        (20, 8, [8, 8, 4]),
        (17, 8, [8, 9]),
        (3, 2, [3]),
        (5, 8, [5]),
        (8, 8, [8]),
        (9, 8, [9]),
        (1, 8, [1]),
        (7, None, [7]),
    ],
)
def test_chunks_cover_the_batch_and_none_is_a_single_image(n, group, sizes):
    assert chunk_sizes(n, group) == sizes
    assert sum(sizes) == n


@pytest.mark.parametrize("n", [8, 12, 9, 16, 14])
@pytest.mark.parametrize(("kind", "tail"), [(BatchNorm2d, (3, 2)), (BatchNorm1d, ())])
def test_grouped_norm_equals_slow_loops(n, kind, tail):
    torch.manual_seed(n)
    norm, x = fresh(kind).double(), torch.randn(n, 5, *tail).double() * 3 + 1
    before_mean, before_var = norm.running_mean.clone(), norm.running_var.clone()
    set_group(norm, 4)
    got = norm(x)
    want, mean, variance = reference(x, chunk_sizes(n, 4), norm.weight, norm.bias, norm.eps)
    np.testing.assert_allclose(got.detach().numpy(), want, atol=1e-12)
    np.testing.assert_allclose(norm.running_mean, 0.9 * before_mean.numpy() + 0.1 * mean, atol=1e-12)
    np.testing.assert_allclose(norm.running_var, 0.9 * before_var.numpy() + 0.1 * variance, atol=1e-12)
    assert norm.num_batches_tracked == 1


@pytest.mark.parametrize("group", [None, 12, 100])
def test_one_chunk_is_plain_batch_norm_with_its_gradients(group):
    torch.manual_seed(0)
    ours, x = fresh(BatchNorm2d), torch.randn(12, 5, 4, 3)
    plain = nn.BatchNorm2d(5)
    plain.load_state_dict(ours.state_dict())
    set_group(ours, group)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    for _ in range(2):
        ours(a).pow(3).sum().backward()
        plain(b).pow(3).sum().backward()
    assert torch.equal(a.grad, b.grad)
    assert torch.equal(ours.weight.grad, plain.weight.grad)
    for name, value in plain.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name


def test_gradients_of_groups_equal_separate_norms():
    torch.manual_seed(1)
    norm = fresh(BatchNorm2d).double()
    other = copy.deepcopy(norm)
    x = torch.randn(10, 5, 3, 2, dtype=torch.float64)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    set_group(norm, 4)
    norm(a).pow(3).sum().backward()
    sum(other(b[i:j]).pow(3).sum() for i, j in ((0, 4), (4, 8), (8, 10))).backward()
    torch.testing.assert_close(a.grad, b.grad)
    torch.testing.assert_close(norm.weight.grad, other.weight.grad)


def test_chunks_do_not_see_each_other():
    norm, x = fresh(BatchNorm1d), torch.randn(8, 5)
    set_group(norm, 4)
    alone = norm(x)[:4]
    x[4:] += 100
    assert torch.equal(norm(x)[:4], alone)


def test_groups_do_not_matter_in_evaluation():
    norm, x = fresh(BatchNorm2d).eval(), torch.randn(9, 5, 2, 2)
    plain = norm(x)
    set_group(norm, 4)
    assert torch.equal(norm(x), plain)
    assert norm.num_batches_tracked == 0


def test_layout_and_half_precision_arithmetic_are_kept():
    norm = fresh(BatchNorm2d)
    set_group(norm, 4)
    x = torch.randn(8, 5, 3, 2).to(memory_format=torch.channels_last)
    assert norm(x).is_contiguous(memory_format=torch.channels_last)
    assert norm(x.bfloat16()).dtype == torch.bfloat16
    assert norm.running_mean.dtype == torch.float32


def test_state_dict_has_the_plain_names():
    assert BatchNorm2d(3).state_dict().keys() == nn.BatchNorm2d(3).state_dict().keys()


def test_ibn_normalises_half_per_image():
    ibn = IBN(6)
    x = torch.randn(4, 6, 5, 5) * torch.arange(1, 5).view(4, 1, 1, 1) + 3
    y = ibn(x)
    assert torch.allclose(y[:, :3].mean((2, 3)), torch.zeros(4, 3), atol=1e-5)
    assert torch.allclose(y[:, :3].var((2, 3), correction=0), torch.ones(4, 3), atol=1e-3)
    assert torch.allclose(y[:, 3:].mean((0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert y[:, 3:].mean((2, 3)).abs().max() > 0.01
    # a camera's gain and offset vanish from the instance-normalised half
    assert torch.allclose(ibn(2 * x + 1)[:, :3], y[:, :3], atol=1e-3)
    assert {"IN.weight", "IN.bias", "BN.weight", "BN.running_mean"} <= ibn.state_dict().keys()


@pytest.mark.parametrize("n", [1, 0, -4])
def test_groups_of_one_image_are_refused(n):
    with pytest.raises(ValueError, match="at least 2"):
        set_group(BatchNorm1d(2), n)
