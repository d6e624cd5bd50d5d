"""The Internet checksum as arithmetic modulo 65535.

Source: RFC 1071 (ones' complement sum; 2**16 is congruent to 1 modulo 65535, so the sum of the
16-bit words of a buffer is the buffer read as one big integer, modulo 65535).
Does not know about headers: callers add pseudo-header sums themselves.
"""

_from_bytes = int.from_bytes

# Fold widths for packets near 1400 bytes: multiples of 16 bits keep the residue, and each fold
# halves the length at the price of one shift, one mask and one addition. What remains is short
# enough for one division.
_W1, _W2, _W3 = 5520, 2768, 1392
_M1, _M2, _M3 = (1 << _W1) - 1, (1 << _W2) - 1, (1 << _W3) - 1


def residue(data: bytes) -> int:
    """Return the ones' complement sum of `data` (odd length: zero padded) as 0..65534."""
    number = _from_bytes(data, "big")
    size = len(data)
    if size & 1:
        number <<= 8
    if size > 700:
        number = (number >> _W1) + (number & _M1)
        number = (number >> _W2) + (number & _M2)
        number = (number >> _W3) + (number & _M3)
    return number % 65535


def complement(total: int) -> int:
    """Return the checksum field for a sum: never 0, as UDP asks (0xFFFF is the same value)."""
    return 65535 - total % 65535


def pseudo(source: bytes, destination: bytes, protocol: int) -> int:
    """Return the pseudo-header's sum without the length (RFC 9293 §3.1, RFC 8200 §8.1)."""
    return residue(source + destination) + protocol
