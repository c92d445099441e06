"""How good a picture is: against a reference, and by two measures that ask for none.

All take uint8 RGB, height x width x 3.
"""

import numpy as np

TRIMMED = 0.1  # of UIQM's colour values, at either end
BLOCK = 8  # side of UIQM's blocks
EXTREME = 0.01  # of UCIQE's lightness, at either end


def psnr(picture, reference):
    """Peak signal to noise ratio, dB; infinite where they are equal."""
    from skimage.metrics import peak_signal_noise_ratio

    with np.errstate(divide="ignore"):
        return float(peak_signal_noise_ratio(reference, picture))


def ssim(picture, reference):
    """Structural similarity by a Gaussian window, mean over the channels (Wang, Bovik, Sheikh, Simoncelli 2004)."""
    from skimage.metrics import structural_similarity

    about = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return float(structural_similarity(reference, picture, channel_axis=2, data_range=255, **about))


def uciqe(picture):
    """Underwater colour image quality: 0.4680 spread of chroma + 0.2745 contrast of lightness + 0.2576 mean saturation.

    Yang, Sowmya, "An underwater color image quality evaluation metric", IEEE Transactions on Image Processing 24(12),
    2015. CIE Lab in hundredths; contrast: the mean of the lightest hundredth less that of the darkest; saturation:
    chroma by the length of chroma and lightness together, as in the authors' own code.
    """
    from skimage.color import rgb2lab

    lightness, a, b = np.moveaxis(rgb2lab(picture) / 100, 2, 0)
    chroma = np.hypot(a, b)
    ordered = np.sort(lightness, axis=None)
    count = max(1, round(EXTREME * ordered.size))
    contrast = ordered[-count:].mean() - ordered[:count].mean()
    length = np.hypot(chroma, lightness)
    saturation = np.divide(chroma, length, out=np.zeros_like(chroma), where=length > 0)
    return float(0.4680 * chroma.std() + 0.2745 * contrast + 0.2576 * saturation.mean())


def uiqm(picture):
    """Underwater image quality: 0.0282 colourfulness + 0.2953 sharpness + 3.5753 contrast.

    Panetta, Gao, Agaian, "Human-visual-system-inspired underwater image quality measures", IEEE Journal of Oceanic
    Engineering 41(3), 2016, with plain sums and differences in place of the logarithmic ones, as is usual.
    """
    picture = picture.astype(float)
    return 0.0282 * colourfulness(picture) + 0.2953 * sharpness(picture) + 3.5753 * contrast(picture)


def colourfulness(picture):
    """UICM: of red less green and yellow less blue, the spread less how far the trimmed means are off."""
    red, green, blue = np.moveaxis(picture, 2, 0)
    means, variances = [], []
    for values in (red - green, (red + green) / 2 - blue):
        ordered = np.sort(values, axis=None)
        cut = int(TRIMMED * ordered.size)
        means.append(ordered[cut : ordered.size - cut].mean())
        variances.append(np.square(values - means[-1]).mean())
    return float(-0.0268 * np.hypot(*means) + 0.1586 * np.sqrt(sum(variances)))


def sharpness(picture):
    """UISM: of each channel times its Sobel edges, the log ratio of the extremes of every block; 0 where one is 0."""
    from scipy.ndimage import sobel

    total = 0.0
    for weight, channel in zip((0.299, 0.587, 0.114), np.moveaxis(picture, 2, 0), strict=True):
        edges = np.hypot(sobel(channel, 0), sobel(channel, 1))
        low, high = _extremes(edges * channel)
        seen = low > 0
        total += weight * 2 * np.log(high[seen] / low[seen]).sum() / low.size
    return float(total)


def contrast(picture):
    """UIConM: of the intensity, the entropy-like mean of the contrast of every block."""
    low, high = _extremes(picture.mean(axis=2))
    seen = high > low
    michelson = (high[seen] - low[seen]) / (high[seen] + low[seen])
    return float(-(michelson * np.log(michelson)).sum() / low.size)


def _extremes(values):
    """The least and the greatest value of every whole block."""
    rows, columns = (side // BLOCK for side in values.shape)
    blocks = values[: rows * BLOCK, : columns * BLOCK].reshape(rows, BLOCK, columns, BLOCK)
    return blocks.min(axis=(1, 3)), blocks.max(axis=(1, 3))


def gray_world(picture):
    """Each channel scaled so that the picture's mean is gray: what any enhancement has to beat."""
    means = picture.mean(axis=(0, 1))
    return np.clip(picture * (means.mean() / np.maximum(means, 1e-9)) + 0.5, 0, 255).astype(np.uint8)


def score(picture, reference=None):
    """What a picture is given by every measure."""
    known = {"psnr": np.nan, "ssim": np.nan}
    if reference is not None:
        known = {"psnr": psnr(picture, reference), "ssim": ssim(picture, reference)}
    return known | {"uiqm": uiqm(picture), "uciqe": uciqe(picture)}
