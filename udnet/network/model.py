"""UDnet, top-down: the inference path alone (66 tensors) and the whole published network (162 tensors).

Saleh, Sheaves, Jerry, Rahimi Azghadi, "Adaptive deep learning framework for robust unsupervised underwater image
enhancement", Expert Systems with Applications 268, 2025, 126314. A U-Net-like conditional variational autoencoder: at
inference the prior alone runs; the posterior, the reference map and the VGG16 loss serve training. Attribute names are
the published state dict's. The code is the published schedule: it makes no attempt to save memory.
"""

import math

import torch
from torch import nn
from torch.distributions import Independent, Normal, kl_divergence
from torch.nn import functional as F

WIDTH = 64  # channels of every block
LATENT = 20  # size of each of the two latent vectors u and s
SLOPE = 0.01  # of every LeakyReLU
EPS = 1e-5  # in every quotient, as published


class InferenceUDnet(nn.Module):
    """The path that enhances a picture: the prior and the output head, 832,227 parameters.

    Takes (B, 3, H, W) float32 RGB in [0, 1], H and W multiples of 8 and at least 16; returns the same shape, unclipped.
    """

    def __init__(self):
        super().__init__()
        self.decoder = Decoder()

    def forward(self, x):
        return self.decoder(x)


class UDnet(nn.Module):
    """The whole published network: 162 tensors, 16,116,601 parameters; called, it enhances as `InferenceUDnet` does.

    With `vgg_checkpoint`, the path of VGG16's ImageNet checkpoint, it is built as the released code builds it: the
    whole VGG16 is constructed and loaded to keep its features. Without, only the features are constructed.
    """

    def __init__(self, vgg_checkpoint=None):
        super().__init__()
        self.decoder = Decoder(training_path=True)
        self.VGG16 = PerceptualLoss(imagenet_features(vgg_checkpoint) if vgg_checkpoint else vgg_features())

    def forward(self, x):
        return self.decoder(x)

    def loss(self, x, target, perceptual=True):
        """The terms of the training loss, by name; their sum is what is minimised.

        x: (B, 3, H, W) pictures in [0, 1]; target: same shape, from `draw_target`. Samples of the posterior drive the
        normalisation in place of the prior's means; each divergence is averaged over the batch.
        """
        output, prior, posterior = self.decoder.reconstruct(x, target)
        terms = {"mse": F.mse_loss(output, target)}
        if perceptual:  # without VGG16's trained weights this term would say nothing
            terms["perceptual"] = self.VGG16(output, target)
        divergences = (kl_divergence(one, other).mean() for one, other in zip(posterior, prior, strict=True))
        return terms | dict(zip(("kl_u", "kl_s"), divergences, strict=True))


def stages(model):
    """The inference path of either network in order of execution: (name, module), for forward hooks."""
    d = model.decoder
    for name in ("conv1", "conv2", "conv3", "conv4"):
        yield f"encoder.{name}", d.pr_encoder.get_submodule(name)
    yield "conv", d.pr_conv
    yield "UpConv3", d.pr_UpConv3
    yield "UpConv2", d.pr_UpConv2
    yield "statistics", d.compute_z_pr
    yield "normalise", d.normalise
    yield "UpConv1", d.pr_UpConv1
    for name in ("0", "1", "2"):
        yield f"out_conv.{name}", d.out_conv.get_submodule(name)


class Decoder(nn.Module):
    """The prior (`pr_`) with its output head; for training also the posterior (`po_`) and the reference map."""

    def __init__(self, training_path=False):
        super().__init__()  # the modules are in the order of the published keys
        self.pr_encoder = Encoder(3)
        if training_path:
            self.po_encoder = Encoder(6)
        self.pr_conv = ResBlock(WIDTH)
        if training_path:
            self.po_conv = ResBlock(WIDTH)
            self.colornet = ReferenceMap()
        self.pr_UpConv3 = ConvBlock(2 * WIDTH, WIDTH)
        self.pr_UpConv2 = ConvBlock(2 * WIDTH, WIDTH)
        self.pr_UpConv1 = ConvBlock(2 * WIDTH, WIDTH)
        if training_path:
            self.po_UpConv3 = ConvBlock(2 * WIDTH, WIDTH)
            self.po_UpConv2 = ConvBlock(2 * WIDTH, WIDTH)
        self.out_conv = nn.Sequential(ResBlock(WIDTH), ResBlock(WIDTH), nn.Conv2d(WIDTH, 3, 1))
        self.compute_z_pr = LatentStatistics(2 * WIDTH)
        if training_path:
            self.compute_z_po = LatentStatistics(2 * WIDTH)
        self.conv_u = nn.Conv2d(LATENT, 2 * WIDTH, 1)
        self.conv_s = nn.Conv2d(LATENT, 2 * WIDTH, 1)
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.normalise = AdaptiveInstanceNorm()

    def forward(self, x):
        # written out, because what it holds, and until when, is what is measured
        x1, x2, x3, x4 = self.pr_encoder(x)
        d = self.up(self.pr_conv(x4))
        d = self.pr_UpConv3(torch.cat([x3, d], 1))
        d = self.up(d)
        d = self.pr_UpConv2(torch.cat([x2, d], 1))
        d = self.up(d)
        d = torch.cat([x1, d], 1)  # (B, 128, H, W)
        u, s = (z[:, :LATENT] for z in self.compute_z_pr(d))  # the means
        d = self.normalise(d, self.conv_s(s).abs(), self.conv_u(u))
        return self.out_conv(self.pr_UpConv1(d))

    def reconstruct(self, x, target):
        """The picture under a sample of the posterior, and the Gaussians of u and s: of the prior, of the posterior."""
        d = climb(x, self.pr_encoder, self.pr_conv, self.pr_UpConv3, self.pr_UpConv2, self.up)
        prior = [gaussian(z) for z in self.compute_z_pr(d)]
        seen = torch.cat([x, self.colornet(target)], 1)
        e = climb(seen, self.po_encoder, self.po_conv, self.po_UpConv3, self.po_UpConv2, self.up)
        posterior = [gaussian(z) for z in self.compute_z_po(e)]
        u, s = (z.rsample() for z in posterior)
        d = self.normalise(d, self.conv_s(s).abs(), self.conv_u(u))
        return self.out_conv(self.pr_UpConv1(d)), prior, posterior


def climb(x, encoder, conv, conv3, conv2, up):
    """Either U-Net from its picture to its 128 full-size channels: (B, C, H, W) to (B, 128, H, W)."""
    x1, x2, x3, x4 = encoder(x)
    d = up(conv(x4))
    d = up(conv3(torch.cat([x3, d], 1)))
    d = up(conv2(torch.cat([x2, d], 1)))
    return torch.cat([x1, d], 1)


def gaussian(z):
    """The diagonal Gaussian that (B, 40, 1, 1) describes: 20 means, then the logs of 20 standard deviations."""
    mean, log_std = z.chunk(2, dim=1)
    return Independent(Normal(mean, log_std.exp()), 3)


# --- blocks ---


class ConvBlock(nn.Module):
    """Twice: reflection pad, 3x3 convolution, LeakyReLU."""

    def __init__(self, cin, cout):
        super().__init__()
        self.conv = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(cin, cout, 3),
            nn.LeakyReLU(SLOPE),
            nn.ReflectionPad2d(1),
            nn.Conv2d(cout, cout, 3),
            nn.LeakyReLU(SLOPE),
        )

    def forward(self, x):
        return self.conv(x)


class ResBlock(nn.Module):
    """Two convolutions and a channel attention, added to the input."""

    def __init__(self, n):
        super().__init__()
        self.body = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(n, n, 3),
            nn.LeakyReLU(SLOPE),
            nn.ReflectionPad2d(1),
            nn.Conv2d(n, n, 3),
            ChannelAttention(n),
        )

    def forward(self, x):
        return x + self.body(x)


class ChannelAttention(nn.Module):
    """Squeeze and excitation: each channel weighted by what the averages of all channels say."""

    def __init__(self, n):
        super().__init__()
        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.conv_double = nn.Sequential(
            nn.Conv2d(n, n // 16, 1), nn.LeakyReLU(SLOPE), nn.Conv2d(n // 16, n, 1), nn.Sigmoid()
        )

    def forward(self, x):
        return x * self.conv_double(self.global_pool(x))


class Encoder(nn.Module):
    """64 channels at full, half, quarter and eighth size."""

    def __init__(self, cin):
        super().__init__()
        self.conv1 = ConvBlock(cin, WIDTH)
        self.conv2 = ConvBlock(WIDTH, WIDTH)
        self.conv3 = ConvBlock(WIDTH, WIDTH)
        self.conv4 = ResBlock(WIDTH)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x):
        x1 = self.conv1(x)
        x2 = self.conv2(self.pool(x1))
        x3 = self.conv3(self.pool(x2))
        x4 = self.conv4(self.pool(x3))
        return x1, x2, x3, x4


class LatentStatistics(nn.Module):
    """What the mean and the spread of each channel say about the latent Gaussians of u and s.

    (B, C, H, W) to two of (B, 40, 1, 1). The spread is the unbiased standard deviation of each column's rows, then the
    unbiased standard deviation of those across the columns.
    """

    def __init__(self, channels):
        super().__init__()
        self.u_conv_layer = nn.Conv2d(channels, 2 * LATENT, 1)
        self.s_conv_layer = nn.Conv2d(channels, 2 * LATENT, 1)

    def forward(self, x):
        mean = x.mean(2, keepdim=True).mean(3, keepdim=True)
        spread = x.std(2, keepdim=True).std(3, keepdim=True)
        return self.u_conv_layer(mean), self.s_conv_layer(spread)


class AdaptiveInstanceNorm(nn.Module):
    """Each channel of each picture to mean 0 and variance 1, then to the scale and shift given, (B, C, 1, 1)."""

    def forward(self, x, scale, shift):
        return F.instance_norm(x, eps=EPS) * scale + shift


# --- the reference map: USLN, white balance and histogram stretches in three colour spaces ---


class ReferenceMap(nn.Module):
    """The picture that the posterior is shown beside the input: (B, 3, H, W) to the same shape in [0, 1]."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.conv3 = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
        self.conv4, self.conv5, self.conv6 = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
        self.step1 = WhiteBalance()
        self.step2 = StretchRGB()
        self.step3 = StretchHSI()
        self.step4 = StretchLab()

    def forward(self, x):
        w = self.step1(x)
        o2 = self.step2(w) + self.conv1(w).tanh()
        o3 = self.step3(w) + self.conv2(w).tanh()
        o4 = self.step4(w) + self.conv3(w).tanh()
        r = self.conv4(o2) + self.conv5(o3) + self.conv6(o4)
        return 1 - F.relu(1 - F.relu(r))


class WhiteBalance(nn.Module):
    """The picture divided by its average and by its brightest colour, learned."""

    def __init__(self):
        super().__init__()
        self.conv, self.conv1 = (nn.Conv2d(3, 3, 1) for _ in range(2))
        self.conv2, self.conv3, self.conv4, self.conv5 = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(4))

    def forward(self, x):
        average, maximum = x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
        by_average = self.conv2(self.conv(x) / (average + EPS) + self.conv4(x).tanh())
        by_maximum = self.conv3(self.conv1(x) / (maximum + EPS) + self.conv5(x).tanh())
        return by_average + by_maximum


class StretchRGB(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return self.conv(stretch(x))


class StretchHSI(nn.Module):
    """Saturation and intensity are stretched; the hue is kept."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 1)

    def forward(self, x):
        hsi = rgb_to_hsi(x)
        q = stretch(hsi[:, 1:])
        return hsi_to_rgb(torch.cat([hsi[:, :1], q + self.conv(q)], 1))


class StretchLab(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return lab_to_rgb(self.conv(stretch(rgb_to_lab(x))))


def stretch(x):
    """Each channel of each picture from its range to [0, 1]."""
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    return (x - low) / (high - low + EPS)


# --- colour: every conversion takes (B, 3, H, W) and clamps it to [0, 1] first ---

RGB_TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
WHITE = (0.95047, 1.0, 1.08883)  # D65
LAB_SHIFT, LAB_RANGE = (0.0, 86.18303, 107.8573), (100.0, 184.416084, 202.335422)  # Lab scaled to [0, 1]


def _channels(values, x):
    return x.new_tensor(values)[:, None, None]


def _mix(matrix, x):
    return torch.einsum("ij,bjhw->bihw", matrix, x)


def rgb_to_lab(rgb):
    """sRGB to CIE Lab under D65: L / 100, (a + 86.18303) / 184.416084, (b + 107.8573) / 202.335422."""
    rgb = rgb.clamp(0, 1)
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    t = _mix(rgb.new_tensor(RGB_TO_XYZ), linear) / _channels(WHITE, rgb)
    # the clamp keeps the gradient of the branch that is not taken finite
    x, y, z = torch.where(t > 0.008856, t.clamp(min=0.008856) ** (1 / 3), 7.787 * t + 16 / 116).unbind(1)
    lab = torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)
    return (lab + _channels(LAB_SHIFT, lab)) / _channels(LAB_RANGE, lab)


def lab_to_rgb(lab):
    """The inverse of `rgb_to_lab`; colours outside sRGB come out outside [0, 1]."""
    lab = lab.clamp(0, 1)
    lightness, a, b = (lab * _channels(LAB_RANGE, lab) - _channels(LAB_SHIFT, lab)).unbind(1)
    y = (lightness + 16) / 116
    f = torch.stack([y + a / 500, y, y - b / 200], 1)
    t = torch.where(f > 0.206893, f**3, (f - 16 / 116) / 7.787)
    linear = _mix(torch.linalg.inv(lab.new_tensor(RGB_TO_XYZ)), t * _channels(WHITE, lab))
    return torch.where(linear > 0.0031308, 1.055 * linear.clamp(min=0.0031308) ** (1 / 2.4) - 0.055, 12.92 * linear)


def rgb_to_hsi(rgb):
    """RGB to hue, saturation and intensity, each in [0, 1]."""
    r, g, b = rgb.clamp(0, 1).unbind(1)
    intensity = (r + g + b) / 3
    saturation = 1 - 3 * torch.minimum(torch.minimum(r, g), b) / (r + g + b + EPS)
    cosine = (2 * r - b - g) / 2 / ((r - g) ** 2 + (r - b) * (g - b) + EPS).sqrt()
    angle = cosine.acos() / (2 * math.pi)
    hue = torch.where(b <= r, angle, 1 - angle)  # as released; textbooks compare b with g
    return torch.stack([hue, saturation, intensity], 1)


def hsi_to_rgb(hsi):
    """Back by thirds of the hue circle: in each, one channel leads, one is the least and one makes up the sum."""
    hue, saturation, intensity = hsi.clamp(0, 1).unbind(1)
    third = (3 * hue).floor().clamp(max=2)
    angle = (3 * hue - third) * (2 * math.pi / 3)
    lead = intensity * (1 + saturation * angle.cos() / ((math.pi / 3 - angle).cos() + EPS))
    least = intensity * (1 - saturation)
    rest = 3 * intensity - lead - least
    r = torch.where(third == 0, lead, torch.where(third == 1, least, rest))
    g = torch.where(third == 0, rest, torch.where(third == 1, lead, least))
    b = torch.where(third == 0, least, torch.where(third == 1, rest, lead))
    return torch.stack([r, g, b], 1)


# --- targets: what training aims at, made from the input itself ---


def draw_target(x, generator=None):
    """A batch's target: each picture contrast-stretched or histogram-equalised, an even choice. (B, 3, H, W)."""
    equalised = torch.rand(len(x), 1, 1, 1, generator=generator) < 0.5
    return torch.where(equalised.to(x.device), equalise(x), stretch(x))


def equalise(x):
    """Each channel of each picture with a flat histogram of 256 levels: (B, 3, H, W) in [0, 1]."""
    levels = (x * 255).round().long().clamp(0, 255).flatten(2)  # (B, 3, H * W)
    counts = x.new_zeros(*levels.shape[:2], 256).scatter_add_(2, levels, torch.ones_like(levels, dtype=x.dtype))
    cumulative = counts.cumsum(2)
    lowest = cumulative.gather(2, levels.amin(2, keepdim=True))
    flat = (cumulative - lowest) / (cumulative[..., -1:] - lowest).clamp(min=1)
    return flat.gather(2, levels).reshape(x.shape)


# --- VGG16 (Simonyan, Zisserman 2014), with torchvision's keys ---

VGG16_WIDTHS = (64, 64, "pool", 128, 128, "pool", *(256,) * 3, "pool", *(512,) * 3, "pool", *(512,) * 3, "pool")


class PerceptualLoss(nn.Module):
    """Mean squared error of VGG16's features 0 to 30; their weights are not trained."""

    def __init__(self, features):
        super().__init__()
        self.loss_network = features
        self.requires_grad_(False)

    def forward(self, output, target):
        return F.mse_loss(self.loss_network(output), self.loss_network(target))


class VGG16(nn.Module):
    """The whole classifier, 138,357,544 parameters: (B, 3, H, W) to (B, 1000)."""

    def __init__(self):
        super().__init__()
        self.features = vgg_features()
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(4096, 1000),
        )

    def forward(self, x):
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


def imagenet_features(checkpoint, weights_only=True):
    """The features of VGG16 as the released code makes them: all of it constructed, its checkpoint read and copied."""
    vgg = VGG16()
    vgg.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=weights_only))
    return vgg.features


def vgg_features():
    """The 31 layers of VGG16 before its classifier."""
    layers, cin = [], 3
    for width in VGG16_WIDTHS:
        if width == "pool":
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(cin, width, 3, padding=1), nn.ReLU(inplace=True)]
            cin = width
    return nn.Sequential(*layers)
