"""BiSeNetV2 (Yu et al., IJCV 2021) for face parsing in 19 classes: a wide shallow branch for detail and a narrow deep one for meaning.

The form is that of the published CelebAMask-HQ weights: batch normalisation is folded into the convolutions, the deep branch goes from
its stem at 1/4 straight to stage 3, and resizing is TensorFlow 1's (output i reads i / factor). Names are those of the weights' file,
with 'kernel' and 'bias' in place of its endings. Everything is per image: a batch may be split over devices in any way.

An image of 448 px takes 0.23 CPU-seconds on one core at batch 4. Depthwise convolutions are ``windows.depthwise``: the library's form
takes many times as long there.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxgan.nets.layers import convolve
from jaxgan.nets.windows import depthwise, max_pool, mean_pool

CLASSES = (
    *("background", "skin", "l_brow", "r_brow", "l_eye", "r_eye", "eye_g", "l_ear", "r_ear", "ear_r"),
    *("nose", "mouth", "u_lip", "l_lip", "neck", "neck_l", "cloth", "hair", "hat"),
)
"""Names by class number, as CelebAMask-HQ abbreviates them: eye_g glasses, ear_r earring, u_lip and l_lip lips, neck_l necklace."""

SIZE = 448
"""Height and width at which the weights were trained."""

_DETAIL = (
    ("stage_1/conv_block_1_repeat_1", 2),
    ("stage_1/conv_block_2_repeat_1", 1),
    ("stage_2/conv_block_1_repeat_1", 2),
    ("stage_2/conv_block_2_repeat_1", 1),
    ("stage_2/conv_block_2_repeat_2", 1),
    ("stage_3/conv_block_1_repeat_1", 2),
    ("stage_3/conv_block_2_repeat_1", 1),
    ("stage_3/conv_block_2_repeat_2", 1),
)
"""The detail branch: (name, stride)."""

_EXPANSIONS = (
    ("stage_3/ge_block_1_repeat_1", 2),
    ("stage_3/ge_block_2_repeat_1", 1),
    ("stage_4/ge_block_1_repeat_1", 2),
    ("stage_4/ge_block_2_repeat_1", 1),
    ("stage_5/ge_block_1_repeat_1", 2),
    ("stage_5/ge_block_2_repeat_1", 1),
    ("stage_5/ge_block_2_repeat_2", 1),
    ("stage_5/ge_block_2_repeat_3", 1),
)
"""The semantic branch's gather-and-expansion blocks behind its stem: (name, stride)."""

_STEM = "semantic_branch/stage_1/se_block_1_repeat_1/stem_block"
_CONTEXT = "semantic_branch/stage_5/ce_block_3_repeat_1/context_embedding_block"
_AGGREGATION = "aggregation_branch/guided_aggregation_block"

# Endings in the published file -> ours.
_ENDINGS = (
    ("/conv/Conv2D_weights", "kernel"),
    ("/conv/Conv2D_bn_offset", "bias"),
    ("/depthwise_conv_output_weights", "kernel"),
    ("/depthwise_conv_output_bn_offset", "bias"),
    ("/FusedBatchNormV3/Scaled", "scale"),
    ("/FusedBatchNormV3/Offset", "bias"),
    ("/W", "kernel"),
)


def params(arrays: Mapping[str, np.ndarray]) -> dict[str, dict[str, jax.Array]]:
    """The network's parameters by block, float32: {block: {'kernel', 'bias'}}; kernels HWIO, depthwise ones [3, 3, C, M].

    Args:
      arrays: the published file's 110 arrays.

    Raises:
      ValueError: an array has an unknown name, or one is missing.
    """
    result: dict[str, dict[str, jax.Array]] = {}
    for name, array in arrays.items():
        block, part = next(((name.removesuffix(ending), part) for ending, part in _ENDINGS if name.endswith(ending)), (name, None))
        if part is None:
            raise ValueError(f"BiSeNetV2: no array of the published file is called {name!r}")
        result.setdefault(block, {})[part] = jnp.asarray(np.asarray(array, np.float32))
    example = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    try:
        jax.eval_shape(lambda params, images: _logits(params, images, "highest"), result, example)
    except KeyError as error:
        raise ValueError(f"BiSeNetV2: the arrays of {error.args[0]!r} are missing") from None
    except TypeError as error:
        raise ValueError(f"BiSeNetV2: shapes that do not follow one another: {str(error).splitlines()[0]}") from None
    return result


@functools.partial(jax.jit, static_argnames="precision")
def logits(params: Mapping[str, Mapping[str, jax.Array]], images: jax.Array, *, precision: str = "highest") -> jax.Array:
    """Class scores at the images' size, before the softmax: [N, H, W, 3] -> float32 [N, H, W, 19].

    Args:
      params: from ``params``.
      images: float32 RGB in [-1, 1]; 448 x 448 is what the weights were trained on, any multiple of 32 is computed.
      precision: of the products on devices that round them; 'default' is faster there and not exact.

    Raises:
      ValueError: images of another shape.
    """
    _check(images)
    return _resize(_logits(params, images, precision), 8)


@functools.partial(jax.jit, static_argnames="precision")
def labels(params: Mapping[str, Mapping[str, jax.Array]], images: jax.Array, *, precision: str = "highest") -> jax.Array:
    """The class of every pixel, the lowest of equals: [N, H, W, 3] -> int32 [N, H, W]. Arguments as ``logits``."""
    return jnp.argmax(logits(params, images, precision=precision), -1).astype(jnp.int32)


def _check(images) -> None:
    if images.ndim != 4 or images.shape[-1] != 3 or images.shape[1] % 32 or images.shape[2] % 32 or 0 in images.shape:
        expected = f"[N, H, W, 3] with H and W multiples of 32 ({SIZE} for the trained weights)"
        raise ValueError(f"images of shape {images.shape}; expected {expected}")


def _logits(params, images, precision):
    """[N, H, W, 3] -> [N, H / 8, W / 8, 19]."""

    def conv(x, name, stride=1):
        block = params[name]
        x = convolve(x, block["kernel"], stride=stride, precision=precision)
        return x + block["bias"] if "bias" in block else x

    def conv_relu(x, name, stride=1):
        return jax.nn.relu(conv(x, name, stride))

    def deep(x, name, stride=1):
        return depthwise(x, params[name]["kernel"], stride) + params[name]["bias"]

    def stem(x):
        """[N, H, W, 3] -> [N, H / 4, W / 4, 16]: two ways to halve, side by side."""
        x = conv_relu(x, f"{_STEM}/conv_block_1", 2)
        left = conv_relu(x, f"{_STEM}/downsample_branch_left/1x1_conv_block")
        left = conv_relu(left, f"{_STEM}/downsample_branch_left/3x3_conv_block", 2)
        return conv_relu(jnp.concatenate([left, max_pool(x, 3, 2, "SAME")], -1), f"{_STEM}/final_conv_block")

    def gather_and_expand(x, name, stride):
        """A residual block that is six times as wide inside; with stride 2 the shortcut has a convolution of its own."""
        if stride == 1:
            block = f"semantic_branch/{name}/gather_expansion_block/stride_equal_one_module"
            inner = deep(conv_relu(x, f"{block}/3x3_conv_block"), f"{block}/depthwise_conv_block")
            return jax.nn.relu(x + conv(inner, f"{block}/1x1_conv_block"))
        block = f"semantic_branch/{name}/gather_expansion_block/stride_equal_two_module"
        inner = deep(conv_relu(x, f"{block}/3x3_conv_block"), f"{block}/depthwise_conv_block_1", 2)
        inner = deep(inner, f"{block}/depthwise_conv_block_2")
        shortcut = conv(deep(x, f"{block}/input_project_dw_conv_block", 2), f"{block}/input_project_1x1_conv_block")
        return jax.nn.relu(shortcut + conv(inner, f"{block}/1x1_conv_block"))

    def embed_context(x):
        """Adds to every pixel what the whole image says."""
        normalise = params[f"{_CONTEXT}/bn"]
        whole = x.mean((1, 2), keepdims=True) * normalise["scale"] + normalise["bias"]
        return conv(x + conv_relu(whole, f"{_CONTEXT}/conv_block_1"), f"{_CONTEXT}/final_conv_block")

    def aggregate(detail, semantic):
        """Each branch, at its own size, weighs the other: [N, h, w, 128], [N, h / 4, w / 4, 128] -> [N, h, w, 128]."""
        path = f"{_AGGREGATION}/detail_branch"
        detail_large = conv(deep(detail, f"{path}/3x3_dw_conv_block"), f"{path}/1x1_conv_block")
        detail_small = mean_pool(conv(detail, f"{path}/3x3_conv_block", 2), 3, 2)
        path = f"{_AGGREGATION}/semantic_branch"
        semantic_large = jax.nn.sigmoid(_resize(conv(semantic, f"{path}/3x3_conv_block"), 4))
        semantic_small = jax.nn.sigmoid(conv(deep(semantic, f"{path}/3x3_dw_conv_block"), f"{path}/1x1_conv_block"))
        fused = detail_large * semantic_large + _resize(detail_small * semantic_small, 4)
        return conv_relu(fused, f"{_AGGREGATION}/aggregation_features/aggregation_feature_output")

    detail = images
    for name, stride in _DETAIL[:-1]:
        detail = conv_relu(detail, f"detail_branch/{name}/3x3_conv", stride)
    detail = conv(detail, f"detail_branch/{_DETAIL[-1][0]}/3x3_conv")  # no ReLU on the last

    semantic = stem(images)
    for name, stride in _EXPANSIONS:
        semantic = gather_and_expand(semantic, name, stride)
    semantic = embed_context(semantic)

    return conv(conv_relu(aggregate(detail, semantic), "logits/3x3_conv_block"), "logits/1x1_conv_block")


def _resize(x: jax.Array, factor: int) -> jax.Array:
    """TensorFlow 1's bilinear enlargement by a whole factor: output i reads i / factor, and beyond the last pixel the last pixel."""
    for axis in (1, 2):
        length = x.shape[axis]
        following = jnp.concatenate([lax.slice_in_dim(x, 1, length, axis=axis), lax.slice_in_dim(x, length - 1, length, axis=axis)], axis)
        weight = jnp.asarray(np.arange(factor) / factor, x.dtype).reshape(factor, *(1,) * (x.ndim - axis - 1))
        near, far = jnp.expand_dims(x, axis + 1), jnp.expand_dims(following, axis + 1)
        x = (near + (far - near) * weight).reshape(*x.shape[:axis], length * factor, *x.shape[axis + 1 :])
    return x
