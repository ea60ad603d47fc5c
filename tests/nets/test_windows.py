"""Pooling and depthwise convolution by shifted slices against loops over windows in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgan.nets import windows

CASES = [(length, 3, stride, padding) for length in (5, 8) for stride in (1, 2) for padding in ("SAME", "VALID")]
max_pool, mean_pool = (jax.jit(function, static_argnums=(1, 2, 3)) for function in (windows.max_pool, windows.mean_pool))
depthwise = jax.jit(windows.depthwise, static_argnums=(2, 3))


def window_values(x, size, stride, padding):
    """[h, w, H, W] masks: the pixels of each output's window that lie inside the image. TensorFlow's rule for SAME."""
    length = x.shape[1]
    if padding == "SAME":
        outputs = -(-length // stride)
        before = max((outputs - 1) * stride + size - length, 0) // 2
    else:
        outputs, before = (length - size) // stride + 1, 0
    starts = [i * stride - before for i in range(outputs)]
    places = [[place for place in range(start, start + size)] for start in starts]
    return [[(rows, columns) for columns in places] for rows in places], length


def loop(x, size, stride, padding, function):
    """Applies ``function`` to the list of (row in window, column in window, values [B, C]) of each window."""
    grid, length = window_values(x, size, stride, padding)
    result = []
    for line in grid:
        for rows, columns in line:
            inside = [
                (i, j, x[:, row, column])
                for i, row in enumerate(rows)
                for j, column in enumerate(columns)
                if 0 <= row < length and 0 <= column < length
            ]
            result.append(function(inside))
    side = len(grid)
    return np.stack(result, 1).reshape(x.shape[0], side, side, -1)


@pytest.mark.parametrize("length, size, stride, padding", [*CASES, (8, 2, 2, "VALID"), (5, 2, 1, "SAME")])
def test_pooling_takes_the_pixels_inside_the_image_only(length, size, stride, padding):
    x = np.random.default_rng(0).normal(-3.0, 1.0, (2, length, length, 3))  # below 0: padding with 0 would win a maximum
    x = x.astype(np.float32).astype(np.float64)
    given = jnp.asarray(x, jnp.float32)
    largest = loop(x, size, stride, padding, lambda inside: np.max([values for *_, values in inside], 0))
    mean = loop(x, size, stride, padding, lambda inside: np.mean([values for *_, values in inside], 0))
    np.testing.assert_array_equal(max_pool(given, size, stride, padding), largest.astype(np.float32))
    np.testing.assert_allclose(mean_pool(given, size, stride, padding), mean, rtol=1e-6)


@pytest.mark.parametrize("length, size, stride, padding", CASES)
@pytest.mark.parametrize("multiplier", [1, 6])
def test_depthwise_convolution_orders_its_outputs_by_channel_first(length, size, stride, padding, multiplier):
    rng = np.random.default_rng(1)
    x, kernel = rng.normal(size=(2, length, length, 4)), rng.normal(size=(size, size, 4, multiplier))
    expected = loop(x, size, stride, padding, lambda inside: sum((v[:, :, None] * kernel[i, j]).reshape(2, -1) for i, j, v in inside))
    found = depthwise(jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32), stride, padding)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_window_larger_than_the_image_and_a_kernel_for_other_channels_are_refused():
    with pytest.raises(ValueError, match="3 x 3 do not fit an image of 2 x 2"):
        windows.max_pool(jnp.zeros((1, 2, 2, 1)), 3, 1)
    with pytest.raises(ValueError, match="kernel for 4 channels met an image of 3"):
        windows.depthwise(jnp.zeros((1, 8, 8, 3)), jnp.zeros((3, 3, 4, 1)))
