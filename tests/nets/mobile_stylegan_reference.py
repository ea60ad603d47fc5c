"""MobileStyleGAN written down again in double precision, channels first and in the order of the published file, one pixel map at a time.

Nothing here is shared with jaxgan: names are the published ones, wavelets are transposed convolutions with 2 x 1 and 1 x 2 filters.
"""

from __future__ import annotations

import numpy as np

ROOT = np.sqrt(0.5)


def random_arrays(rng: np.random.Generator, widths: tuple[int, ...], latent: int, mapping: int) -> dict[str, np.ndarray]:
    """Arrays with the published names and layouts, of other sizes. The constants' numbers fall from input to output in the synthesis
    network and rise in the mapping network, as they do in the published file."""
    arrays: dict[str, np.ndarray] = {}
    number = iter(range(2000, 0, -1))

    def put(name: str, *shape: int, fan: int = 1, values=None) -> None:
        array = rng.normal(0, fan**-0.5, shape) if values is None else np.full(shape, values)
        arrays[f"{name}.c{next(number)}"] = array.astype(np.float32)

    def modulated(name: str, module: str, channels: int) -> None:
        put(f"{module}@MatMul", channels, latent, fan=latent)
        put(f"{module}.bias", 1, channels)

    def separable(name: str, inputs: int, outputs: int, side: int) -> None:
        modulated(name, f"{name}.conv.modulation", inputs)
        put(f"{name}@Multiply", 1, 1, 1, 1, values=(9 * inputs) ** -0.5)
        put(f"{name}@GroupConvolution", inputs, 1, 1, 3, 3)
        put(f"{name}@Convolution", outputs, inputs, 1, 1)
        put(f"{name}@Add", 1, 1, side, side)
        put(f"{name}.bias", 1, outputs, 1, 1)
        put(f"{name}@PReLU", 1, values=0.2)

    put("snet.m.input.input", 1, widths[0], 4, 4)
    modulated("snet.m.conv1", "snet.m.conv1.conv.modulation", widths[0])
    put("snet.m.conv1@Multiply", 1, 1, 1, 1, values=(9 * widths[0]) ** -0.5)
    put("snet.m.conv1@Convolution", widths[0], widths[0], 3, 3)
    put("snet.m.conv1@Add", 1, 1, 4, 4)
    put("snet.m.conv1.bias", 1, widths[0], 1, 1)
    for i, (before, width) in enumerate(zip(widths, widths[1:], strict=False)):
        name = f"snet.m.layers.{i}"
        modulated(f"{name}.up", f"{name}.up.modulation", before)
        separable(f"{name}.conv1", before // 4, width, 8 << i)
        separable(f"{name}.conv2", width, width, 8 << i)
    name = f"snet.m.layers.{len(widths) - 2}.to_img"
    modulated(name, f"{name}.conv.modulation", widths[-1])
    put(f"{name}@Multiply", 1, 1, 1, 1, values=widths[-1] ** -0.5)
    put(f"{name}.conv.weight", 12, widths[-1], 1, 1)
    put(f"{name}.bias", 1, 12, 1, 1)
    for i in range(mapping):
        arrays[f"mnet.g@MatMul.c{22 + 16 * i}"] = rng.normal(0, latent**-0.5, (latent, latent)).astype(np.float32)
        arrays[f"mnet.g@Reshape.c{24 + 16 * i}"] = rng.normal(0, 1, latent).astype(np.float32)
    return arrays


class Reference:
    def __init__(self, arrays: dict[str, np.ndarray]):
        self.named = {}
        for name, array in sorted(arrays.items(), key=lambda item: int(item[0].rpartition(".c")[2])):
            self.named.setdefault(name.rpartition(".c")[0], []).append(array.astype(np.float64))

    def __getitem__(self, name: str) -> np.ndarray:
        (array,) = self.named[name]
        return array

    def map_latents(self, z: np.ndarray) -> np.ndarray:
        x = z / np.sqrt((z**2).mean(1, keepdims=True) + 1e-8)
        for kernel, bias in zip(self.named["mnet.g@MatMul"], self.named["mnet.g@Reshape"], strict=True):
            x = rectify(x @ kernel.T + bias) * np.sqrt(2)
        return x

    def style(self, module: str, w: np.ndarray) -> np.ndarray:
        return (self[f"{module}@MatMul"] @ w + self[f"{module}.bias"][0])[:, None, None]

    def convolution(self, name: str, x: np.ndarray, w: np.ndarray) -> np.ndarray:
        x = x * self.style(f"{name}.conv.modulation", w) * self[f"{name}@Multiply"][0]
        if f"{name}@GroupConvolution" in self.named:
            x = np.stack([correlate(plane, kernel[0, 0]) for plane, kernel in zip(x, self[f"{name}@GroupConvolution"], strict=True)])
        weight = self[f"{name}@Convolution"]
        if weight.shape[2] == 1:
            x = np.tensordot(weight[:, :, 0, 0], x, 1)
        else:
            x = np.stack([sum(correlate(plane, kernel) for plane, kernel in zip(x, kernels, strict=True)) for kernels in weight])
        return rectify(x + self[f"{name}@Add"][0] + self[f"{name}.bias"][0])

    def synthesise(self, codes: np.ndarray) -> np.ndarray:
        """[rows, W] -> [3, R, R]."""
        rows = iter(codes)
        x = self.convolution("snet.m.conv1", self["snet.m.input.input"][0], next(rows))
        layers = (len(codes) - 2) // 3
        for i in range(layers):
            name = f"snet.m.layers.{i}"
            x = inverse_haar(x * self.style(f"{name}.up.modulation", next(rows)))
            x = self.convolution(f"{name}.conv1", x, next(rows))
            x = self.convolution(f"{name}.conv2", x, next(rows))
        name = f"snet.m.layers.{layers - 1}.to_img"
        x = x * self.style(f"{name}.conv.modulation", next(rows)) * self[f"{name}@Multiply"][0]
        return inverse_haar(np.tensordot(self[f"{name}.conv.weight"][:, :, 0, 0], x, 1) + self[f"{name}.bias"][0])


def rectify(x: np.ndarray) -> np.ndarray:
    return np.where(x >= 0, x, 0.2 * x)


def correlate(plane: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """3 x 3 correlation of one plane, zeros beyond the border."""
    padded = np.pad(plane, 1)
    return sum(kernel[i, j] * padded[i : i + plane.shape[0], j : j + plane.shape[1]] for i in range(3) for j in range(3))


def inverse_haar(x: np.ndarray) -> np.ndarray:
    """[4 C, H, W] -> [C, 2H, 2W]; published order: C means, then the three details of channel 0, of channel 1, ..."""
    count = len(x) // 4
    details = x[count:].reshape(count, 3, *x.shape[1:])
    low = rows(x[:count], [ROOT, ROOT]) + rows(details[:, 0], [ROOT, -ROOT])
    high = rows(details[:, 1], [ROOT, ROOT]) + rows(details[:, 2], [ROOT, -ROOT])
    return columns(low, [ROOT, ROOT]) + columns(high, [ROOT, -ROOT])


def rows(x: np.ndarray, taps) -> np.ndarray:
    """Transposed convolution of stride 2 along the height."""
    return np.stack([x * taps[0], x * taps[1]], 2).reshape(len(x), 2 * x.shape[1], x.shape[2])


def columns(x: np.ndarray, taps) -> np.ndarray:
    return np.stack([x * taps[0], x * taps[1]], 3).reshape(len(x), x.shape[1], 2 * x.shape[2])
