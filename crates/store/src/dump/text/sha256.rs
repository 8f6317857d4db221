//! Text of SHA-256 multihashes and of their CIDs. Nearly all rows of a dump have one. Their lengths are fixed, which
//! reduces the arithmetic of base58 to ten divisions.
//!
//! With `bs58` for [`multihash()`] a dump of a million rows takes 3.2 times the CPU (1.9 s in place of 0.6 s), since
//! base58 divides the whole number for each digit. Base32 by `data-encoding` costs less than a tenth of that, so
//! [`cid()`] uses it.

use super::BASE32;

const BASE58: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
/// Length in base58btc: 46 digits, since all of them begin with the bytes 12 20.
pub const MULTIHASH_LEN: usize = 46;
/// Length in base32 of CIDv1, codec raw, without the multibase prefix.
pub const CID_LEN: usize = 58;

/// Base58 is computed in limbs of five digits, highest first: 58^5 is the largest power of 58 that fits a u32.
const LIMB: u64 = 58u64.pow(5);
/// Number of limbs that 34 bytes take.
const LIMBS: usize = 10;
/// Number of 32-bit words of a digest.
const WORDS: usize = 8;
/// Number of leading zeros: ten limbs have 50 digits, and the multihash is the last 46.
const LEADING: usize = LIMBS * 5 - MULTIHASH_LEN;

/// Value of the two bytes in front of a digest: code and length of SHA-256.
const PREFIX: [u64; LIMBS] = shifted(0x1220, 32);
/// Value of the lowest bit of each word of a digest.
const POWERS: [[u64; LIMBS]; WORDS] = {
    let mut powers = [[0; LIMBS]; WORDS];
    let mut word = 0;
    while word < WORDS {
        powers[word] = shifted(1, 4 * (WORDS - 1 - word));
        word += 1;
    }
    powers
};

/// Proves at compile time that, whatever the digest, no sum overflows and the leading digits are zero.
const _: () = {
    let mut limb = 0;
    while limb < LIMBS {
        // The carry from the next lower limb is below 2^35.
        let mut most = PREFIX[limb] as u128 + (1 << 35);
        let mut word = 0;
        while word < WORDS {
            most += POWERS[word][limb] as u128 * u32::MAX as u128;
            word += 1;
        }
        assert!(most <= u64::MAX as u128);
        limb += 1;
    }
    assert!(shifted(0x1221, 32)[0] < 58 && PREFIX[0] > 0);
};

/// Returns `value * 256^bytes` in limbs.
const fn shifted(value: u64, bytes: usize) -> [u64; LIMBS] {
    let mut limbs = [0; LIMBS];
    limbs[LIMBS - 1] = value;
    let mut done = 0;
    while done < bytes {
        let mut carry = 0;
        let mut limb = LIMBS;
        while limb > 0 {
            limb -= 1;
            let sum = limbs[limb] * 256 + carry;
            limbs[limb] = sum % LIMB;
            carry = sum / LIMB;
        }
        done += 1;
    }
    limbs
}

/// All pairs of base58 digits.
static PAIRS_58: [[u8; 2]; 58 * 58] = {
    let mut pairs = [[0; 2]; 58 * 58];
    let mut n = 0;
    while n < pairs.len() {
        pairs[n] = [BASE58[n / 58], BASE58[n % 58]];
        n += 1;
    }
    pairs
};

/// Returns the multihash of a digest in base58btc, without a multibase prefix.
pub fn multihash(digest: &[u8; 32]) -> [u8; MULTIHASH_LEN] {
    let mut limbs = PREFIX;
    for (bytes, power) in digest.chunks_exact(4).zip(&POWERS) {
        let word = bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        for (limb, power) in limbs.iter_mut().zip(power) {
            *limb += word * power;
        }
    }
    let mut digits = [0; LIMBS * 5];
    let mut carry = 0;
    for (limb, text) in limbs.iter().zip(digits.chunks_exact_mut(5)).rev() {
        let sum = limb + carry;
        carry = sum / LIMB;
        let low = (sum % LIMB) as usize;
        let (front, back) = (low / 58usize.pow(3), low % 58usize.pow(3));
        text[..2].copy_from_slice(&PAIRS_58[front]);
        text[2..4].copy_from_slice(&PAIRS_58[back / 58]);
        text[4] = BASE58[back % 58];
    }
    let mut text = [0; MULTIHASH_LEN];
    text.copy_from_slice(&digits[LEADING..]);
    text
}

/// Returns the CIDv1, codec raw, of a digest in base32, without the multibase prefix.
pub fn cid(digest: &[u8; 32]) -> [u8; CID_LEN] {
    // Bytes of a CID: version, codec, code, length, digest.
    let mut bytes = [0; 36];
    bytes[..4].copy_from_slice(&[0x01, 0x55, 0x12, 0x20]);
    bytes[4..].copy_from_slice(digest);
    let mut text = [0; CID_LEN];
    BASE32.encode_mut(&bytes, &mut text);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use multibase::Base;
    use proptest::prelude::*;

    fn agrees(digest: [u8; 32]) {
        let bytes = [&[0x12, 0x20][..], &digest].concat();
        assert_eq!(String::from_utf8_lossy(&multihash(&digest)), Base::Base58Btc.encode(&bytes));
        let bytes = [&[0x01, 0x55][..], &bytes].concat();
        assert_eq!(String::from_utf8_lossy(&cid(&digest)), Base::Base32Lower.encode(bytes));
    }

    proptest! {
        #[test]
        fn text_is_that_of_the_library(digest in any::<[u8; 32]>()) {
            agrees(digest);
        }
    }

    #[test]
    fn so_it_is_at_both_ends_and_beside_each_power_of_two() {
        agrees([0; 32]);
        agrees([255; 32]);
        for bit in 0..256 {
            let mut one = [0; 32];
            one[bit / 8] = 1 << (bit % 8);
            agrees(one);
            let ones = std::array::from_fn(|byte| match byte.cmp(&(bit / 8)) {
                std::cmp::Ordering::Less => 255,
                std::cmp::Ordering::Equal => 0xff << (bit % 8),
                std::cmp::Ordering::Greater => 0,
            });
            agrees(ones);
        }
    }
}
