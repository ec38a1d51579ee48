"""Error correction of a watermark's payload: a checksum, then a convolutional code read by Viterbi's algorithm.

The code has rate 1/3, constraint length 9 and free distance 18 (generators 557, 663 and 711, octal: Larsen, "Short
convolutional codes with maximal free distance for rates 1/2, 1/3, and 1/4", 1973). It is ended by eight zeros. The
checksum is CRC-16/CCITT (ITU-T X.25): one wrong payload in 65536 passes it.
"""

from __future__ import annotations

import numpy as np

from .payload import BITS

_GENERATORS = (0o557, 0o663, 0o711)
_MEMORY = 8  # bits that the encoder remembers
_CRC_BITS, _CRC_POLYNOMIAL = 16, 0x1021
CODED_BITS = (BITS + _CRC_BITS + _MEMORY) * len(_GENERATORS)


def _parity(values: np.ndarray) -> np.ndarray:
    return (np.bitwise_count(values) & 1).astype(np.int8)


# A state is the last eight bits, the newest first: from 2 * (n % 128) + the oldest, bit n // 128 leads to n.
_STATES = np.arange(1 << _MEMORY)
_FROM = (_STATES[:, None] << 1 & (1 << _MEMORY) - 1) | np.arange(2)
_REGISTER = (_STATES[:, None] >> _MEMORY - 1 << _MEMORY) | _FROM
_SENT = 1 - 2 * np.stack([_parity(_REGISTER & generator) for generator in _GENERATORS], axis=-1)  # (256, 2, 3) of +-1


def encode(bits: np.ndarray) -> np.ndarray:
    """Return a payload's bits with checksum as coded signs: (48,) -> int8 (216,) of +1 for 0 and -1 for 1."""
    register, signs = 0, []
    for bit in [*bits, *_checksum(bits), *[0] * _MEMORY]:
        register = int(bit) << _MEMORY | register >> 1
        signs += [1 - 2 * ((register & generator).bit_count() & 1) for generator in _GENERATORS]
    return np.array(signs, dtype=np.int8)


def decode(soft: np.ndarray) -> np.ndarray | None:
    """Return the most likely payload, uint8 (48,); None where its checksum is wrong.

    Args:
        soft: what was received of each coded sign, (216,): the surer, the larger.
    """
    score = np.full(len(_STATES), -np.inf)
    score[0] = 0.0
    chosen = []
    for received in soft.reshape(-1, len(_GENERATORS)):
        through = score[_FROM] + _SENT @ received
        best = through.argmax(axis=1)
        score = through[_STATES, best]
        chosen.append(best)
    state, bits = 0, []
    for best in reversed(chosen):
        bits.append(state >> _MEMORY - 1)
        state = int(_FROM[state, best[state]])
    told = np.array(bits[::-1][: BITS + _CRC_BITS], dtype=np.uint8)
    return told[:BITS] if np.array_equal(told[BITS:], _checksum(told[:BITS])) else None


def _checksum(bits: np.ndarray) -> np.ndarray:
    register = 0xFFFF
    for bit in bits:
        feedback = (register >> _CRC_BITS - 1) ^ int(bit)
        register = register << 1 & 0xFFFF ^ (_CRC_POLYNOMIAL if feedback else 0)
    return np.array(list(format(register, f"0{_CRC_BITS}b")), dtype=np.uint8)
