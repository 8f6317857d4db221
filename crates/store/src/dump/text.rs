//! The text of keys, and the hash of rows. Written by hand where a dump of a hundred million rows would wait for it:
//! base58 by way of a general library takes longer than all the rest of a row.

pub mod sha256;

use multibase::Base;
use sha2::{Digest, Sha256};

const BASE58: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// The largest power of 58 that a u32 holds, and how many digits that is.
const GROUP: (u64, usize) = (58u64.pow(5), 5);
/// Longest number written by hand, in words of 32 bits: a multihash has at most 255 bytes.
const WORDS: usize = 64;

/// Appends bytes in base58btc, without a multibase prefix.
pub fn push_base58(out: &mut Vec<u8>, bytes: &[u8]) {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let number = &bytes[zeros..];
    if number.len() > WORDS * 4 {
        out.extend_from_slice(Base::Base58Btc.encode(bytes).as_bytes());
        return;
    }
    out.resize(out.len() + zeros, BASE58[0]);
    let mut words = [0u32; WORDS];
    let len = number.len().div_ceil(4);
    for (word, bytes) in words[..len].iter_mut().rev().zip(number.rchunks(4)) {
        *word = bytes.iter().fold(0, |word, byte| word << 8 | u32::from(*byte));
    }
    // Lowest digits first, then turned round. 256 bytes are 350 digits.
    let mut digits = [0u8; 360];
    let mut count = 0;
    let mut rest = &mut words[..len];
    while !rest.is_empty() {
        let mut group = 0u64;
        for word in rest.iter_mut() {
            let value = group << 32 | u64::from(*word);
            *word = (value / GROUP.0) as u32;
            group = value % GROUP.0;
        }
        let done = rest.iter().take_while(|word| **word == 0).count();
        rest = &mut rest[done..];
        for digit in &mut digits[count..count + GROUP.1] {
            *digit = BASE58[(group % 58) as usize];
            group /= 58;
        }
        count += GROUP.1;
    }
    // The highest group has zeros in front.
    let highest = digits[..count].iter().rposition(|digit| *digit != BASE58[0]).map_or(0, |last| last + 1);
    out.extend(digits[..highest].iter().rev());
}

/// Appends bytes in base32 (RFC 4648, lower case, no padding), without a multibase prefix.
pub fn push_base32(out: &mut Vec<u8>, bytes: &[u8]) {
    for group in bytes.chunks(5) {
        let bits = group.iter().fold(0u64, |bits, byte| bits << 8 | u64::from(*byte)) << (8 * (5 - group.len()));
        let digits: [u8; 8] = std::array::from_fn(|digit| BASE32[(bits >> (35 - 5 * digit)) as usize & 31]);
        out.extend_from_slice(&digits[..(group.len() * 8).div_ceil(5)]);
    }
}

/// What [`push_base32`] wrote; `None` if it wrote nothing of the kind.
pub fn read_base32(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 5 / 8);
    let (mut bits, mut count) = (0u32, 0);
    for digit in text {
        let value = match digit {
            b'a'..=b'z' => digit - b'a',
            b'2'..=b'7' => digit - b'2' + 26,
            _ => return None,
        };
        bits = (bits << 5 | u32::from(value)) & 0xfff;
        count += 5;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    let left_over = bits & ((1 << count) - 1);
    (left_over == 0 && count < 5).then_some(bytes)
}

/// The sum of the SHA-256 of rows, modulo 2^256: the same in whatever order they come. It tells apart what was damaged,
/// left out or doubled, not what somebody has made up on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sum([u64; 4]);

impl Sum {
    /// Adds a row by its text.
    pub fn add_row(&mut self, text: &[u8]) {
        let digest = Sha256::digest(text);
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().rev().zip(digest.chunks_exact(8)) {
            *word = bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        }
        self.add(&Self(words));
    }

    /// Adds another sum.
    pub fn add(&mut self, other: &Self) {
        let mut carry = false;
        for (word, more) in self.0.iter_mut().zip(other.0) {
            let (sum, first) = word.overflowing_add(more);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            (*word, carry) = (sum, first | second);
        }
    }

    /// 64 digits in base16.
    pub fn to_hex(self) -> String {
        self.0.iter().rev().map(|word| format!("{word:016x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(push: fn(&mut Vec<u8>, &[u8]), bytes: &[u8]) -> String {
        let mut out = Vec::new();
        push(&mut out, bytes);
        String::from_utf8(out).unwrap()
    }

    proptest! {
        #[test]
        fn text_is_that_of_the_library(zeros in 0..4usize, bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let bytes = [vec![0; zeros], bytes].concat();
            prop_assert_eq!(text(push_base58, &bytes), Base::Base58Btc.encode(&bytes));
            let base32 = text(push_base32, &bytes);
            prop_assert_eq!(&base32, &Base::Base32Lower.encode(&bytes));
            prop_assert_eq!(read_base32(base32.as_bytes()), Some(bytes));
        }

        #[test]
        fn no_text_panics(text in proptest::collection::vec(any::<u8>(), 0..100)) {
            read_base32(&text);
        }

        #[test]
        fn a_sum_does_not_depend_on_order_and_sees_doubles(mut rows in proptest::collection::vec(any::<u64>(), 1..50)) {
            let sum = |rows: &[u64]| {
                let mut sum = Sum::default();
                rows.iter().for_each(|row| sum.add_row(&row.to_be_bytes()));
                sum
            };
            let before = sum(&rows);
            rows.reverse();
            prop_assert_eq!(sum(&rows), before);
            let mut halves = sum(&rows[..rows.len() / 2]);
            halves.add(&sum(&rows[rows.len() / 2..]));
            prop_assert_eq!(halves, before);
            rows.push(rows[0]);
            prop_assert_ne!(sum(&rows), before);
        }
    }

    #[test]
    fn a_sum_of_one_row_is_its_sha256() {
        let mut sum = Sum::default();
        sum.add_row(b"abc");
        assert_eq!(sum.to_hex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
