//! Unsigned-varint length prefixes (MSG-1): minimal, bounded, incremental.

/// A server reads at most this much per message (MSG-3).
pub const MAX_REQUEST: usize = 64 * 1024;
/// A client reads up to go's limit (MSG-3).
pub const MAX_ANSWER: usize = 4 * 1024 * 1024;
/// Nothing longer is written: libp2p-kad clients refuse more and silently lose everything (MSG-3).
pub const MAX_WRITE: usize = 16 * 1024;

/// Longest varint that the multiformats specification allows: 63 bits.
const MAX_VARINT: usize = 9;

/// What the bytes at hand say of the next message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Header {
    /// More bytes of the length are needed.
    Incomplete,
    /// The header takes `header` bytes, the body `body` bytes.
    Complete {
        /// Bytes of the length prefix.
        header: usize,
        /// Bytes of the message that follows.
        body: usize,
    },
}

/// Why a length prefix is refused: the stream is reset.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// It goes on after nine bytes, more than the multiformats specification allows.
    #[error("length prefix is longer than a length can be")]
    Overflow,
    /// Its last byte is zero: the same number has a shorter form.
    #[error("length prefix is not minimal")]
    NotMinimal,
    /// The body would have this many bytes, more than the reader takes.
    #[error("message of {0} bytes is over the limit")]
    TooLong(u64),
}

/// Reads a length prefix from the start of `bytes`. The body may have at most `max_body` bytes.
///
/// Says as early as the bytes allow that a prefix is bad: at most nine are ever looked at.
pub fn header(bytes: &[u8], max_body: usize) -> Result<Header, FrameError> {
    let Some((length, header)) = read_varint(bytes)? else { return Ok(Header::Incomplete) };
    match usize::try_from(length) {
        Ok(body) if body <= max_body => Ok(Header::Complete { header, body }),
        _ => Err(FrameError::TooLong(length)),
    }
}

/// A minimal unsigned varint of at most 63 bits and how many bytes it takes; `None` if it goes on behind `bytes`.
pub(super) fn read_varint(bytes: &[u8]) -> Result<Option<(u64, usize)>, FrameError> {
    let mut value = 0u64;
    for (index, &byte) in bytes.iter().take(MAX_VARINT).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            if byte == 0 && index > 0 {
                return Err(FrameError::NotMinimal);
            }
            return Ok(Some((value, index + 1)));
        }
    }
    if bytes.len() >= MAX_VARINT { Err(FrameError::Overflow) } else { Ok(None) }
}

/// Appends `value` as a minimal unsigned varint.
pub fn put_varint(buffer: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        // The low seven bits; the cast cuts the rest on purpose.
        buffer.push(value as u8 | 0x80);
        value >>= 7;
    }
    buffer.push(value as u8);
}

/// Bytes that [`put_varint`] takes for `value`.
pub(super) fn varint_len(value: usize) -> usize {
    let bits = usize::BITS - value.leading_zeros();
    bits.div_ceil(7).max(1) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn msg_1_a_length_that_is_not_minimal_is_refused() {
        assert_eq!(header(&[0x80, 0x00], 100), Err(FrameError::NotMinimal));
        assert_eq!(header(&[0x81, 0x80, 0x00], 100), Err(FrameError::NotMinimal));
        assert_eq!(header(&[0x00], 100), Ok(Header::Complete { header: 1, body: 0 }));
    }

    #[test]
    fn msg_1_a_length_that_overflows_is_refused() {
        assert_eq!(header(&[0xff; 8], usize::MAX), Ok(Header::Incomplete));
        assert_eq!(header(&[0xff; 9], usize::MAX), Err(FrameError::Overflow));
        assert_eq!(header(&[0xff; 20], usize::MAX), Err(FrameError::Overflow));
    }

    #[test]
    fn msg_1_a_length_over_the_limit_is_refused() {
        assert_eq!(header(&[100], 100), Ok(Header::Complete { header: 1, body: 100 }));
        assert_eq!(header(&[101], 100), Err(FrameError::TooLong(101)));
        let mut longest = [0xff; 9];
        longest[8] = 0x7f;
        assert_eq!(header(&longest, MAX_ANSWER), Err(FrameError::TooLong((1 << 63) - 1)));
    }

    proptest! {
        #[test]
        fn msg_1_every_length_survives_and_is_incomplete_until_its_last_byte(value in 0u64..1 << 63, behind: Vec<u8>) {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            let header_len = bytes.len();
            prop_assert_eq!(varint_len(value as usize), header_len);
            for cut in 0..header_len {
                prop_assert_eq!(header(&bytes[..cut], usize::MAX), Ok(Header::Incomplete));
            }
            bytes.extend(behind);
            let expected = Header::Complete { header: header_len, body: value as usize };
            prop_assert_eq!(header(&bytes, usize::MAX), Ok(expected));
        }

        #[test]
        fn msg_1_no_bytes_make_the_header_panic_or_exceed_its_limit(bytes: Vec<u8>, limit in 0usize..100_000) {
            if let Ok(Header::Complete { header, body }) = header(&bytes, limit) {
                prop_assert!(header <= bytes.len() && body <= limit);
            }
        }
    }
}
