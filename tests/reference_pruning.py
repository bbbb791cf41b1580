"""Wanda and SparseGPT written plainly in float64: the oracle of `compression.calibrated`.

A network is a list of layers, each run on all images before the next; patches are cut pixel by pixel. SparseGPT
inverts the Hessian of the columns that are left anew at each column: the published code has one Cholesky factor.
"""

import numpy as np


def patches(maps, layer, channels):
    """The inputs of a layer for some of its channels: [D, N, H, W]; by row and column of the kernel, then channel."""
    (kernel_y, kernel_x), (stride, _) = layer.kernel_size, layer.stride
    (padding, _), (dilation, _) = layer.padding, layer.dilation
    padded = np.pad(maps, [(0, 0), (0, 0), (padding, padding), (padding, padding)])
    high, wide = (
        (side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        for side, kernel in zip(maps.shape[2:], (kernel_y, kernel_x), strict=True)
    )
    columns = []
    for y in range(kernel_y):
        for x in range(kernel_x):
            for channel in channels:
                column = np.empty((len(maps), high, wide))
                for i in range(high):
                    for j in range(wide):
                        place = i * stride + y * dilation, j * stride + x * dilation
                        column[:, i, j] = padded[:, channel, place[0], place[1]]
                columns.append(column)
    return np.stack(columns)


def smallest(scores, count):
    """The keys of the smallest scores, of equal ones those before."""
    return sorted(scores, key=scores.get)[:count]


def wanda(rows, columns, sparsity, n, m):
    norms, rows = np.sqrt((columns**2).sum(1)), rows.copy()
    for row in rows:
        scores = {i: -1 if row[i] == 0 else abs(row[i]) * norms[i] for i in range(len(row))}
        removed = smallest(scores, round(sparsity * len(row))) if sparsity else []
        for start in range(0, len(row), m) if n else ():
            removed += smallest({i: scores[i] for i in range(start, start + m)}, m - n)
        row[removed] = 0
    return rows


def sparsegpt(groups, columns, images, sparsity, n, m):
    """groups: the rows of each group; columns: the inputs of each. The choice of a block is over all of them."""
    groups, gone = [rows.copy() for rows in groups], []
    hessians = [2 / images * inputs @ inputs.T for inputs in columns]
    for rows, hessian in zip(groups, hessians, strict=True):
        dead = np.diag(hessian) == 0
        hessian[dead, dead] = 1
        hessian += 0.01 * np.diag(hessian).mean() * np.eye(len(hessian))
        gone.append((rows == 0) | dead)
        rows[gone[-1]] = 0
    width = groups[0].shape[1]
    block = 128 if not n else max(m, 128 - 128 % m)
    inverses = [{j: np.linalg.inv(hessian[j:, j:]) for j in range(width)} for hessian in hessians]

    def scores(places):
        return {(g, r, j): -1 if gone[g][r, j] else groups[g][r, j] ** 2 / inverses[g][j][0, 0] for g, r, j in places}

    for j in range(width):
        if not n and j % block == 0:
            end = min(j + block, width)
            every = [(g, r, i) for g, rows in enumerate(groups) for r in range(len(rows)) for i in range(j, end)]
            for g, r, i in smallest(scores(every), round(sparsity * len(every))):
                gone[g][r, i] = True
        if n and j % m == 0:
            for g, rows in enumerate(groups):
                for r in range(len(rows)):
                    for _, _, i in smallest(scores([(g, r, i) for i in range(j, j + m)]), m - n):
                        gone[g][r, i] = True
        for g, rows in enumerate(groups):
            for r in np.flatnonzero(gone[g][:, j]):
                row = inverses[g][j][0]
                rows[r, j:] -= rows[r, j] / row[0] * row
                rows[r, j] = 0
    return groups


def prune(layers, images, method, sparsity=None, n=None, m=None):
    """The weights of the layers with weights, pruned one after another. layers: convolutions, linear layers, and what
    else is computed, as a function of arrays; images: float64 [N, 3, S, S]."""
    x, pruned = images, []
    for layer in layers:
        if not hasattr(layer, "weight"):
            x = layer(x)
            continue
        weight = layer.weight.detach().double().numpy()
        linear, groups = weight.ndim == 2, getattr(layer, "groups", 1)
        inputs, outputs = weight.shape[1], len(weight) // groups
        columns = [
            x.T[:, :, None, None] if linear else patches(x, layer, range(g * inputs, (g + 1) * inputs))
            for g in range(groups)
        ]
        by_position = weight if linear else weight.transpose(0, 2, 3, 1).reshape(len(weight), -1)
        rows = [by_position[g * outputs : (g + 1) * outputs] for g in range(groups)]
        flat = [column.reshape(len(column), -1) for column in columns]
        if method == "wanda":
            rows = [wanda(*pair, sparsity, n, m) for pair in zip(rows, flat, strict=True)]
        else:
            rows = sparsegpt(rows, flat, len(images), sparsity, n, m)
        maps = [np.einsum("od,dnhw->nohw", *pair) for pair in zip(rows, columns, strict=True)]
        x = np.concatenate(maps, 1) + layer.bias.detach().double().numpy()[:, None, None]
        x = x[:, :, 0, 0] if linear else x
        together = np.concatenate(rows)
        high, wide = (1, 1) if linear else layer.kernel_size
        pruned.append(together.reshape(-1, high, wide, inputs).transpose(0, 3, 1, 2).reshape(weight.shape))
    return pruned
