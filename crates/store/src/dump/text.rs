//! Text of keys, and the hash of rows. Libraries write the text, except that of a SHA-256 multihash in base58
//! ([`sha256`]): a library takes more than twice as long for this multihash as for the rest of the row.

pub mod sha256;

use data_encoding::Encoding;
use data_encoding_macro::new_encoding;
use sha2::{Digest, Sha256};

/// Base32 of multibase `b`: RFC 4648, lower case, no padding.
static BASE32: Encoding = new_encoding! { symbols: "abcdefghijklmnopqrstuvwxyz234567", };

/// Appends bytes in base58btc, without a multibase prefix.
pub fn push_base58(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&bs58::encode(bytes).into_vec());
}

/// Appends bytes in base32 (RFC 4648, lower case, no padding), without a multibase prefix.
pub fn push_base32(out: &mut Vec<u8>, bytes: &[u8]) {
    let from = out.len();
    out.resize(from + BASE32.encode_len(bytes.len()), 0);
    BASE32.encode_mut(bytes, &mut out[from..]);
}

/// Decodes what [`push_base32`] wrote; `None` for other text.
pub fn read_base32(text: &[u8]) -> Option<Vec<u8>> {
    BASE32.decode(text).ok()
}

/// Sum of the SHA-256 of rows, modulo 2^256, which does not depend on their order. It detects damaged, missing and
/// doubled rows, but not rows made up on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sum([u64; 4]);

impl Sum {
    /// Adds the text of a row.
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

    /// Returns the sum as 64 hexadecimal digits.
    pub fn to_hex(self) -> String {
        self.0.iter().rev().map(|word| format!("{word:016x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use multibase::Base;
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
