//! Messages with their length in front, as the DHT sends them.

use futures::{AsyncRead, AsyncReadExt};

/// Returns `body` with its length in front, an unsigned varint.
pub fn framed(body: &[u8]) -> Vec<u8> {
    let (mut bytes, mut n) = (Vec::new(), body.len());
    while n >= 0x80 {
        bytes.push(n as u8 | 0x80);
        n >>= 7;
    }
    bytes.push(n as u8);
    bytes.extend_from_slice(body);
    bytes
}

/// Reads the body of the next message. Returns `None` if the stream ends before that.
pub async fn read_message(stream: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let (mut length, mut shift, mut byte) = (0, 0, [0x80]);
    while byte[0] & 0x80 != 0 {
        stream.read_exact(&mut byte).await.ok()?;
        length |= usize::from(byte[0] & 0x7f) << shift;
        shift += 7;
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(body)
}
