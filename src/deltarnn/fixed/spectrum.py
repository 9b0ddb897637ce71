"""Magnitudes of the spectrum of real frames in integers: window, FFT of zero-padded frames, |·| without a root.

What a small processor computes (docs/embedded.md); every shift rounds down. With mul(a, w) = ⌊a·w/2¹⁶⌋, a of 32 bits,
w of 16:

    y[n] = ⌊x[n]·w[n] / 2^s + 1/2⌋                            w: the window in Q15; 0 beyond the frame
    even bins: u[n] = y[n] + y[n+N/2], z[n] = u[2n] + j·u[2n+1], FFT of N/4 points, split into the spectrum of u
    odd bins:  v[n] = y[n] − y[n+N/2], z[n] = (v[n] − j·v[n+N/4])·exp(−2πj·n/N), FFT of N/4 points:
               its bin m is bin 4m+1 of the frame's spectrum, or, conjugate, bin N−1−4m

so a spectrum of N points needs memory for N/4 complex ones. The FFT decimates in time, by 4 (once by 2 where N/4 is no
power of 4); each stage with twiddle factors halves, which keeps 32 bits from overflowing: `shift` is the least s for
which no sum can. |a + jb| is the larger of two projections, within 1 %: the maximum over i of s·cos ψ_i + d·sin ψ_i,
with s = |a| + |b|, d = ||a| − |b||, ψ_i = 45° − θ_i.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from deltarnn.fixed.arithmetic import IntArray

MIN_POINTS, MAX_POINTS = 64, 4096

Q15 = 15
_LIMIT = 2.0**31
_DIRECTIONS = (11.25, 33.75)
"""θ_i, degrees: no direction of the octant is further than 11.25° from one of them."""
_RIPPLE = 2 / (1 + np.cos(np.radians(_DIRECTIONS[0])))
"""Makes the error of the magnitude as large above as below."""


def multiply(a: IntArray, w: IntArray | int) -> IntArray:
    """⌊a·w / 2¹⁶⌋."""
    return np.asarray((a * w) >> 16, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class IntegerSpectrum:
    """Magnitudes of the bins 0 … nfft/2 − 1 of windowed frames.

    window: (length,) Q15. nfft: a power of two, at least the length.

    Raises
    ------
    ValueError
        If nfft is no power of two from 64 to 4096, or shorter than the window.
    """

    window: IntArray
    nfft: int

    def __post_init__(self) -> None:
        if not MIN_POINTS <= self.nfft <= MAX_POINTS or self.nfft & (self.nfft - 1):
            raise ValueError(f"nfft={self.nfft}: the integer FFT takes powers of two from {MIN_POINTS} to {MAX_POINTS}")
        if len(self.window) > self.nfft:
            raise ValueError(f"nfft={self.nfft}: a frame has {len(self.window)} samples; nfft must be at least that")

    @property
    def points(self) -> int:
        """Complex points of the FFT: nfft/4."""
        return self.nfft // 4

    @property
    def halvings(self) -> int:
        """Stages of the FFT that halve."""
        return (self.points.bit_length() - 2) // 2

    @property
    def first_radix(self) -> int:
        """By how many the first stage combines; the others by 4."""
        return 2 if self.points.bit_length() % 2 == 0 else 4

    @cached_property
    def shift(self) -> int:
        """s, the least for which no sum reaches 2³¹, whatever the samples: Σ|·| followed through the stages."""
        return next(s for s in range(1, 16) if self._largest(s) < _LIMIT - 2.0**16)

    @property
    def fraction_bits(self) -> int:
        """Of the spectrum, relative to sums of samples (negative: it is coarser than they are)."""
        return Q15 - self.shift - self.halvings

    @cached_property
    def order(self) -> IntArray:
        """(points,) where the FFT takes z[n] from: its digits reversed."""
        position, n, size = np.zeros(self.points, np.int64), np.arange(self.points), self.points
        while size > 2:
            position += n % 4 * (size // 4)
            n, size = n // 4, size // 4
        return position + n % size if size == 2 else position

    @cached_property
    def twiddles(self) -> tuple[IntArray, IntArray]:
        """(cos, sin) of 2πk/points for k < 3/4·points, Q15."""
        return _circle(self.points, 3 * self.points // 4)

    @cached_property
    def twists(self) -> tuple[IntArray, IntArray]:
        """(cos, sin) of 2πk/nfft for k < nfft/4, Q15."""
        return _circle(self.nfft, self.points)

    def projections(self, fraction_bits: int) -> list[tuple[int, int]]:
        """(cos ψ_i, sin ψ_i)/√2 as `multiply` takes them, for magnitudes with so many fraction bits."""
        scale = _RIPPLE * 2.0 ** (15.5 + fraction_bits - self.fraction_bits)
        angles = np.radians(45.0 - np.array(_DIRECTIONS))
        return [(round(float(scale * np.cos(a))), round(float(scale * np.sin(a)))) for a in angles]

    def energy_bound(self) -> float:
        """The largest Σ|X[k]|² over the bins, of 16-bit samples (Parseval)."""
        window = self.window / 2.0**Q15
        return 2.0**30 * (self.nfft * float(np.square(window).sum()) + float(window.sum()) ** 2) / 2

    def magnitudes(self, frames: NDArray[np.int16], fraction_bits: int) -> IntArray:
        """|X| (R, nfft/2) of frames (R, length), in multiples of 2^−fraction_bits."""
        projections = self.projections(fraction_bits)
        return self._ordered(*(_magnitude(*part, projections) for part in (self._even(frames), self._odd(frames))))

    def powers(self, frames: NDArray[np.int16]) -> IntArray:
        """|X|² (R, nfft/2) of frames (R, length), with 2·`fraction_bits` fraction bits; below 2⁶², as |X| below 2³¹."""
        return self._ordered(*(re * re + im * im for re, im in (self._even(frames), self._odd(frames))))

    def _ordered(self, even: IntArray, odd: IntArray) -> IntArray:
        """Values (R, nfft/2) by bin, of those (R, points) of the even and the odd ones."""
        out = np.empty((len(even), self.nfft // 2), np.int64)
        out[:, 0::2] = even
        out[:, 1::4] = odd[:, : self.points // 2]
        out[:, 3::4] = odd[:, : self.points // 2 - 1 : -1]
        return out

    def _windowed(self, frames: NDArray[np.int16], shift: int) -> IntArray:
        padded = np.zeros((len(frames), self.nfft), np.int64)
        products = frames.astype(np.int64) * self.window
        padded[:, : len(self.window)] = (products + (1 << shift >> 1)) >> shift
        return padded

    def _even(self, frames: NDArray[np.int16]) -> tuple[IntArray, IntArray]:
        """(re, im) (R, points) of the bins 0, 2, 4, …"""
        y, half, m = self._windowed(frames, self.shift), self.nfft // 2, self.points
        u = y[:, :half] + y[:, half:]
        re, im = self._transform(u[:, 0::2], u[:, 1::2])
        k = np.arange(1, m // 2)
        cos, sin = (table[2 * k] for table in self.twists)
        a_re, a_im = re[:, k] + re[:, m - k], im[:, k] - im[:, m - k]
        b_re, b_im = re[:, k] - re[:, m - k], im[:, k] + im[:, m - k]
        t_re = multiply(b_re, cos) + multiply(b_im, sin)
        t_im = multiply(b_im, cos) - multiply(b_re, sin)
        re[:, 0], im[:, 0] = re[:, 0] + im[:, 0], 0
        re[:, k], im[:, k] = (a_re >> 1) + t_im, (a_im >> 1) - t_re
        re[:, m - k], im[:, m - k] = (a_re >> 1) - t_im, (a_im >> 1) + t_re
        return re, im

    def _odd(self, frames: NDArray[np.int16]) -> tuple[IntArray, IntArray]:
        """(re, im) (R, points) of the bins 1, 5, 9, …; the later half stands for conjugates of … 11, 7, 3."""
        y, half, m = self._windowed(frames, self.shift - 1), self.nfft // 2, self.points
        v = y[:, :half] - y[:, half:]
        p, q, (cos, sin) = v[:, :m], v[:, m:], self.twists
        return self._transform(multiply(p, cos) - multiply(q, sin), -(multiply(q, cos) + multiply(p, sin)))

    def _transform(self, re: IntArray, im: IntArray) -> tuple[IntArray, IntArray]:
        """FFT (R, points) of z (R, points) in natural order, scaled by 2^−halvings."""
        z = np.empty((2, *re.shape), np.int64)
        z[0][:, self.order], z[1][:, self.order] = re, im
        for size, radix in self._stages():
            parts = z.reshape(2, len(re), -1, radix, size)
            if radix == 2:
                a, b = parts[..., 0, :].copy(), parts[..., 1, :].copy()
                parts[..., 0, :], parts[..., 1, :] = a + b, a - b
            else:
                self._butterflies(parts, size)
        return z[0], z[1]

    def _stages(self) -> Iterator[tuple[int, int]]:
        """(points combined so far, by how many they are combined), from the first stage on."""
        size = 1
        while size < self.points:
            radix = self.first_radix if size == 1 else 4
            yield size, radix
            size *= radix

    def _butterflies(self, parts: IntArray, size: int) -> None:
        """One stage by 4, in place: parts (2, R, groups, 4, size)."""
        (a_re, b_re, c_re, d_re), (a_im, b_im, c_im, d_im) = (np.moveaxis(part, -2, 0).copy() for part in parts)
        if size > 1:
            step = self.points // (4 * size)
            turned = [(a_re >> 1, a_im >> 1)]
            for q, (re, im) in enumerate(((b_re, b_im), (c_re, c_im), (d_re, d_im)), start=1):
                cos, sin = (table[q * step * np.arange(size)] for table in self.twiddles)
                t_re, t_im = multiply(re, cos) + multiply(im, sin), multiply(im, cos) - multiply(re, sin)
                t_re[..., 0], t_im[..., 0] = re[..., 0] >> 1, im[..., 0] >> 1  # by 1, which Q15 has not
                turned.append((t_re, t_im))
            (a_re, a_im), (b_re, b_im), (c_re, c_im), (d_re, d_im) = turned
        s_re, s_im, t_re, t_im = a_re + c_re, a_im + c_im, a_re - c_re, a_im - c_im
        u_re, u_im, v_re, v_im = b_re + d_re, b_im + d_im, b_re - d_re, b_im - d_im
        re, im = (np.moveaxis(part, -2, 0) for part in parts)
        re[0], im[0], re[2], im[2] = s_re + u_re, s_im + u_im, s_re - u_re, s_im - u_im
        re[1], im[1], re[3], im[3] = t_re + v_im, t_im - v_re, t_re - v_im, t_im + v_re

    def _largest(self, shift: int) -> float:
        """The largest |sum| that 16-bit samples can cause anywhere with this shift."""
        y = np.zeros(self.nfft)
        y[: len(self.window)] = np.abs(self.window) * 2.0 ** (15 - shift)
        folded = y[: self.nfft // 2] + y[self.nfft // 2 :]
        even, odd = folded.reshape(-1, 2).sum(axis=1), folded[: self.points] + folded[self.points :]
        largest = 2 * float(folded.max())  # before the twist, which halves
        for bound in (even, odd):
            level = np.empty(self.points)
            level[self.order] = bound
            for size, radix in self._stages():
                level = level.reshape(-1, radix, size).sum(axis=1) / (2 if size > 1 and radix == 4 else 1)
                largest = max(largest, float(level.max()))
                level = np.repeat(level, radix, axis=0)
            largest = max(largest, math.sqrt(2) * float(level.max()))  # |re| + |im|
        return largest


def window_q15(window: NDArray[np.float64]) -> IntArray:
    """A window of at most 1 in Q15."""
    return np.asarray(np.minimum(np.rint(window * 2.0**Q15), 2**Q15 - 1), dtype=np.int64)


def _circle(steps: int, count: int) -> tuple[IntArray, IntArray]:
    angle = 2 * np.pi * np.arange(count) / steps
    return window_q15(np.cos(angle)), window_q15(np.sin(angle))


def _magnitude(re: IntArray, im: IntArray, projections: list[tuple[int, int]]) -> IntArray:
    re, im = np.abs(re), np.abs(im)
    one, other = (multiply(re + im, c) + multiply(np.abs(re - im), s) for c, s in projections)
    return np.asarray(np.maximum(one, other), dtype=np.int64)
