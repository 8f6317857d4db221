//! Unsigned-varint length prefixes (MSG-1): minimal, bounded, incremental.

/// Maximum number of bytes that a server reads per message (MSG-3).
pub const MAX_REQUEST: usize = 64 * 1024;
/// Maximum number of bytes that a client reads per message: go's limit (MSG-3).
pub const MAX_ANSWER: usize = 4 * 1024 * 1024;
/// Maximum number of bytes written per message. libp2p-kad clients refuse a longer message and silently drop all of it
/// (MSG-3).
pub const MAX_WRITE: usize = 16 * 1024;

/// Longest varint that the multiformats specification allows: 63 bits.
const MAX_VARINT: usize = 9;

/// What is known about the next message from the bytes that have arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Header {
    /// The length prefix is not complete.
    Incomplete,
    /// The length prefix is complete.
    Complete {
        /// Bytes of the length prefix.
        header: usize,
        /// Bytes of the message that follows.
        body: usize,
    },
}

/// Why a length prefix is refused. The stream is then reset.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// It has more than nine bytes, the limit of the multiformats specification.
    #[error("length prefix is longer than nine bytes")]
    Overflow,
    /// Its last byte is zero, so the same number has a shorter form.
    #[error("length prefix is not minimal")]
    NotMinimal,
    /// The body has this many bytes, more than the reader accepts.
    #[error("message of {0} bytes is over the limit")]
    TooLong(u64),
}

/// Reads a length prefix from the start of `bytes`. The body may have at most `max_body` bytes.
///
/// Reads at most nine bytes, and refuses a bad prefix as soon as the bytes show it.
pub fn header(bytes: &[u8], max_body: usize) -> Result<Header, FrameError> {
    let Some((length, header)) = read_varint(bytes)? else { return Ok(Header::Incomplete) };
    match usize::try_from(length) {
        Ok(body) if body <= max_body => Ok(Header::Complete { header, body }),
        _ => Err(FrameError::TooLong(length)),
    }
}

/// Reads a minimal unsigned varint of at most 63 bits. Returns it with its length in bytes, or `None` if it is
/// incomplete.
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
        // The low seven bits and the continuation bit; the cast drops the rest on purpose.
        buffer.push(value as u8 | 0x80);
        value >>= 7;
    }
    buffer.push(value as u8);
}

/// Returns the number of bytes that [`put_varint`] writes for `value`.
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
