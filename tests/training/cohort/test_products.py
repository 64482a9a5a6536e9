"""Products by either library are numpy's."""

import numpy as np
import pytest
import torch

from duetto.training.cohort import products


@pytest.mark.parametrize("onednn", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [1, 7, 200])
def test_a_product_is_numpy_s(onednn: bool, dtype: torch.dtype, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if onednn and not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(products, "_onednn", lambda: onednn)
    random = torch.Generator().manual_seed(0)
    x, matrix = (torch.randn(n, 13, generator=random, dtype=dtype) for n in (rows, 5))
    bias, g = torch.randn(5, generator=random, dtype=dtype), torch.randn(rows, 5, generator=random, dtype=dtype)
    tolerance = 1e-12 if dtype == torch.float64 else 2e-5
    for strided in (matrix, matrix.T.contiguous().T):
        factor = products.Factor(strided)
        for added in (None, bias):
            expected = x.numpy() @ matrix.numpy().T + (0 if added is None else bias.numpy())
            np.testing.assert_allclose(factor.times(x, added).numpy(), expected, rtol=tolerance, atol=tolerance)
    found = products.outer(g, x).numpy()
    np.testing.assert_allclose(found, g.numpy().T @ x.numpy(), rtol=tolerance, atol=tolerance * 10)
    found = products.outer(g[:, :3], x[:, ::2]).numpy()
    np.testing.assert_allclose(found, g[:, :3].numpy().T @ x[:, ::2].numpy(), rtol=tolerance, atol=tolerance * 10)
