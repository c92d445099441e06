"""The convolutions of the tiled schedule as modules of PyTorch: run as they are, and exported for ONNX Runtime.

All take a block with its borders, (1, C, n + 2, columns + 2), and return (1, C, n, columns); what is added comes after.
"""

import torch
from torch import nn
from torch.nn import functional as F

from udnet.network.model import SLOPE


class Convolution(nn.Module):
    """A convolution and its LeakyReLU."""

    def __init__(self, cout, cin):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(cout, cin, 3, 3))
        self.bias = nn.Parameter(torch.empty(cout))

    def forward(self, x):
        return F.leaky_relu_(F.conv2d(x, self.weight, self.bias), SLOPE)


class Residual(Convolution):
    """A convolution, to which rows are added."""

    def forward(self, x, rows):
        return F.conv2d(x, self.weight, self.bias).add_(rows)


class Head(Residual):
    """A convolution to which rows are added, and a 1x1 convolution of that to the picture's three channels."""

    def __init__(self, cout, cin):
        super().__init__(cout, cin)
        self.last_weight = nn.Parameter(torch.empty(3, cout, 1, 1))
        self.last_bias = nn.Parameter(torch.empty(3))

    def forward(self, x, rows):
        return F.conv2d(super().forward(x, rows), self.last_weight, self.last_bias)


STAGES = {"convolution": Convolution, "residual": Residual, "head": Head}
EXPORTED = [
    ("convolution", 3),
    ("convolution", 64),
    ("convolution", 128),
    ("residual", 64),
    ("head", 64),
]  # with input channels
