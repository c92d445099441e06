"""The inference path in forms that keep less alive: same keys, same output to rounding, one thing changed in each.

`Form` is the published schedule written out in steps; every other form overrides the steps that its docstring names. A
map is one full-size activation of 64 channels: 256 bytes a pixel. What a function is given to use up comes in a list,
from which it takes it: an argument would be held by the caller until the call returns.
"""

import torch
from torch.nn import functional as F

from udnet.network.model import EPS, LATENT, SLOPE, InferenceUDnet


class Form(InferenceUDnet):
    """As published: a skip connection, and the input of a block, is held by whoever made it until the end."""

    smallest = 16  # side of a picture
    single = False  # whether an exported graph takes one picture at a time
    older = False  # whether a graph is exported by PyTorch's older exporter, in older operators

    def forward(self, x):
        d, e = self.decoder, self.decoder.pr_encoder
        x1 = [self.conv_block(e.conv1, [x])]
        x2 = [self.conv_block(e.conv2, [e.pool(x1[0])])]
        x3 = [self.conv_block(e.conv3, [e.pool(x2[0])])]
        y = [self.res_block(e.conv4, [e.pool(x3[0])])]
        y = [d.up(self.res_block(d.pr_conv, self.take(y)))]
        y = [d.up(self.conv_block(d.pr_UpConv3, self.join(x3, y)))]
        y = [d.up(self.conv_block(d.pr_UpConv2, self.join(x2, y)))]
        y = self.join(x1, y)  # 128 channels, in one part or in two
        known = [self.statistics(part) for part in y]
        mean, spread, variance = (torch.cat(parts, 1) for parts in zip(*known, strict=True))
        u, s = (z[:, :LATENT] for z in (d.compute_z_pr.u_conv_layer(mean), d.compute_z_pr.s_conv_layer(spread)))
        y, layer = self.normalise(y, mean, variance, d.conv_s(s).abs(), d.conv_u(u), d.pr_UpConv1.conv[1])
        first = [self.conv_block(d.pr_UpConv1, self.take(y), layer)]
        second = [self.res_block(d.out_conv[0], self.take(first))]
        return d.out_conv[2](self.res_block(d.out_conv[1], self.take(second)))

    # --- blocks: `held` is theirs to empty ---

    def conv_block(self, block, held, layer=None):
        """A `ConvBlock`; `layer`: weight and bias in place of its first convolution's."""
        layer = layer or (block.conv[1].weight, block.conv[1].bias)
        held = [self.activate(self.convolve(held, *layer))]
        return self.activate(self.convolve(held, block.conv[4].weight, block.conv[4].bias))

    def res_block(self, block, held):
        """A `ResBlock`."""
        x, one, two = held.pop(), block.body[1], block.body[4]
        y = [self.activate(self.convolve([x], one.weight, one.bias))]
        return self.add(x, self.attend(block.body[5], [self.convolve(y, two.weight, two.bias)]))

    def convolve(self, held, weight, bias):
        """A reflection pad and a 3x3 convolution of the parts held: the sum of each part's."""
        if len(held) == 1:
            return self.convolve_part(held, weight, bias)
        one, two = weight.split([part.shape[1] for part in held], 1)
        out = self.convolve_part(held, one, bias)
        return out.add_(self.convolve_part(held, two, None))

    # --- the steps that forms override ---

    def take(self, held):
        """What is held, for a block to use up; whoever made it holds it too."""
        return list(held)

    def join(self, skip, y):
        """A skip connection and what comes from below, in one part: a copy of both."""
        return [torch.cat([*self.take(skip), *self.take(y)], 1)]

    def convolve_part(self, held, weight, bias):
        """The first part held, with its border reflected: a copy of it, which the convolution reads."""
        return F.conv2d(F.pad(held.pop(0), (1, 1, 1, 1), mode="reflect"), weight, bias)

    def activate(self, x):
        return F.leaky_relu(x, SLOPE)

    def attend(self, attention, held):
        return attention(held.pop())

    def add(self, x, y):
        return x + y

    def columns(self, x):
        """Mean and unbiased standard deviation of each column's rows: two of (B, C, 1, W)."""
        return x.mean(2, keepdim=True), x.std(2, keepdim=True)

    def statistics(self, x):
        """Mean, spread as `LatentStatistics` has it, and biased variance of each channel: three of (B, C, 1, 1)."""
        means, spreads = self.columns(x)
        mean = means.mean(3, keepdim=True)
        within = spreads.square().mean(3, keepdim=True) * ((x.shape[2] - 1) / x.shape[2])
        between = (means - mean).square().mean(3, keepdim=True)
        return mean, spreads.std(3, keepdim=True), within + between

    def normalise(self, held, mean, variance, scale, shift, layer):
        """The parts normalised, into new maps, and weight and bias of the convolution that follows."""
        sizes, out = [part.shape[1] for part in held], []
        for gain, offset in zip(scale.split(sizes, 1), shift.split(sizes, 1), strict=True):
            out.append(self.decoder.normalise(held.pop(0), gain, offset))
        return out, (layer.weight, layer.bias)


class InPlace(Form):
    """What is only changed value by value is changed where it is: LeakyReLU, attention, residual sum, normalisation."""

    def activate(self, x):
        return F.leaky_relu_(x, SLOPE)

    def attend(self, attention, held):
        return held[0].mul_(attention.conv_double(attention.global_pool(held[0])))

    def add(self, x, y):
        return y.add_(x)

    def normalise(self, held, mean, variance, scale, shift, layer):
        sizes = [part.shape[1] for part in held]
        gain, offset = _affine(mean, variance, scale, shift)
        for part, factor, term in zip(held, gain.split(sizes, 1), offset.split(sizes, 1), strict=True):
            part.mul_(factor).add_(term)
        return held, (layer.weight, layer.bias)


class Early(Form):
    """Freed with its last use: the skip connections, the 128 channels, the input of every block at full size."""

    def take(self, held):
        taken = list(held)
        held.clear()
        return taken


class Split(Form):
    """A convolution of a concatenation is the sum of two: no map of 128 channels is made; a norm for each half."""

    def join(self, skip, y):
        return [*self.take(skip), *self.take(y)]


class Unpadded(Form):
    """No padded copy: the convolution pads with zeros, and its border is computed again from narrow padded strips."""

    def convolve_part(self, held, weight, bias):
        x = held.pop(0)
        out = F.conv2d(x, weight, bias, padding=1)
        for strip, (left, right, top, bottom), border in (
            (x[:, :, :2], (1, 1, 1, 0), out[:, :, :1]),
            (x[:, :, -2:], (1, 1, 0, 1), out[:, :, -1:]),
            (x[..., :2], (1, 0, 1, 1), out[..., :1]),
            (x[..., -2:], (0, 1, 1, 1), out[..., -1:]),
        ):
            border.copy_(F.conv2d(F.pad(strip, (left, right, top, bottom), mode="reflect"), weight, bias))
        return out


class Folded(Form):
    """The normalisation is in the weights and the bias of the convolution that follows: no normalised map is made.

    A reflected border is shifted as all else is, so a bias does. For one picture at a time: others take their turns.
    """

    single = True

    def forward(self, x):
        return torch.cat([super(Folded, self).forward(one) for one in x.split(1)]) if len(x) > 1 else super().forward(x)

    def normalise(self, held, mean, variance, scale, shift, layer):
        gain, offset = _affine(mean, variance, scale, shift)
        return held, (layer.weight * gain, layer.bias + (layer.weight * offset).sum((1, 2, 3)))


FORMS = {"folded": Folded, "split": Split, "unpadded": Unpadded, "early": Early, "inplace": InPlace}


def compose(*names):
    """The form that is all of these at once; where two override a step, the first of `FORMS` does."""
    return type("Composed", tuple(form for name, form in FORMS.items() if name in names) or (Form,), {})


# --- for ONNX Runtime and others, which free by themselves what the graph no longer needs ---


class Shared(Form):
    """Spread and norm from the same deviations of the columns: one map of differences, no map of squares."""

    def columns(self, x):
        means = x.mean(2, keepdim=True)
        return means, torch.linalg.vector_norm(x - means, dim=2, keepdim=True) / (x.shape[2] - 1) ** 0.5

    def normalise(self, held, mean, variance, scale, shift, layer):
        # a product and a sum, which ONNX Runtime does in place; its own norm would sum a whole image in float32
        sizes = [part.shape[1] for part in held]
        affine = (term.split(sizes, 1) for term in _affine(mean, variance, scale, shift))
        return [part * gain + offset for part, gain, offset in zip(held, *affine, strict=True)], (
            layer.weight,
            layer.bias,
        )


class Stitched(Form):
    """No padded copy: the convolution of the inside, to which its border is joined, from narrow padded strips."""

    smallest = 24  # an eighth of it, less its border, is not empty

    def convolve_part(self, held, weight, bias):
        x = held.pop(0)

        def border(strip, *padding):
            return F.conv2d(F.pad(strip, padding, mode="reflect"), weight, bias)

        top, bottom = border(x[:, :, :2], 0, 0, 1, 0), border(x[:, :, -2:], 0, 0, 0, 1)
        inside = torch.cat([top, F.conv2d(x, weight, bias), bottom], 2)
        return torch.cat([border(x[..., :2], 1, 0, 1, 1), inside, border(x[..., -2:], 0, 1, 1, 1)], 3)


class Counted(Shared):
    """For ncnn's converter: no number is made from a size, rows and columns are counted, as a sum of ones."""

    older = True  # later operators give a sum its axes as an input, which pnnx does not read

    def statistics(self, x):
        mean = x.mean(2, keepdim=True).mean(3, keepdim=True)
        variance = (x - mean).square().mean(2, keepdim=True).mean(3, keepdim=True)
        return mean, self.spread(self.spread(x, 2), 3), variance

    def spread(self, x, dim):
        """The unbiased standard deviation along rows or columns."""
        count = (x[:, :1] * 0 + 1).sum(dim, keepdim=True)
        return ((x - x.mean(dim, keepdim=True)).square().sum(dim, keepdim=True) / (count - 1)).sqrt()


EXPORTED = {  # the graphs that `export` writes by name
    "shared": (Shared,),
    "split": (Split, Shared),
    "stitched": (Stitched, Shared),
    "folded": (Folded, Shared),
    "split-folded": (Folded, Split, Shared),
    "counted": (Counted,),
}


def exported(name):
    """A form of `EXPORTED`, a class."""
    return type("Exported", EXPORTED[name], {})


def _affine(mean, variance, scale, shift):
    """The normalisation as a factor and a term, each (B, C, 1, 1)."""
    gain = scale / (variance + EPS).sqrt()
    return gain, shift - mean * gain
