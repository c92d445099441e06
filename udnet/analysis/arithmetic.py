"""The arithmetic of the network: multiply-adds a pixel, whatever computes them."""

import pandas as pd

from udnet.system.files import DATA

SHRUNK = {"conv2": 4, "pr_UpConv2": 4, "conv3": 16, "pr_UpConv3": 16, "conv4": 64, "pr_conv": 64}  # in pixels, by block


def multiply_adds():
    """Multiply-adds a pixel of the inference path, from the shapes of its 3x3 and 1x1 convolutions on whole maps."""
    tensors = pd.read_csv(DATA / "state_dict.csv")
    weights = tensors[tensors.role.eq("prior") & tensors.key.str.endswith(".weight")]
    kernels = weights[weights["shape"].str.endswith("x3x3") | weights.key.str.endswith("out_conv.2.weight")]
    shares = [1 / next((n for block, n in SHRUNK.items() if f".{block}." in key), 1) for key in kernels.key]
    return float((kernels.parameters * shares).sum())
