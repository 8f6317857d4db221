//! Unsigned-varint length prefixes (MSG-1): minimal, bounded, incremental.

/// A server reads at most this much per message (MSG-3).
pub const MAX_REQUEST: usize = 64 * 1024;
/// A client reads up to go's limit (MSG-3).
pub const MAX_ANSWER: usize = 4 * 1024 * 1024;
/// Nothing longer is written: libp2p-kad clients refuse more and silently lose everything (MSG-3).
pub const MAX_WRITE: usize = 16 * 1024;

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
#[allow(missing_docs)]
pub enum FrameError {
    #[error("length prefix is longer than a length can be")]
    Overflow,
    #[error("length prefix is not minimal")]
    NotMinimal,
    #[error("message of {0} bytes is over the limit")]
    TooLong(u64),
}

/// Reads a length prefix from the start of `bytes`.
#[expect(unused_variables)]
pub fn header(bytes: &[u8], max_body: usize) -> Result<Header, FrameError> {
    todo!()
}
