//! The echo, which shows the limit: the cost of libp2p's transports, streams and this process's tasks when nothing is
//! done with the messages. It reads whole messages and sends a prepared answer for each; ADD_PROVIDER has no answer, as
//! always.

use super::accept::Serve;
use dhtstore::kad::{
    PeerInfo,
    frame::{self, Header},
    message::{EncodedPeer, Message, MessageType, answer},
};
use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::{Multiaddr, PeerId, Stream};
use std::sync::Arc;

/// Size up to which answers are gathered before they are sent, as in our server.
const BATCH: usize = 16 * 1024;

/// Answers every request with about `bytes` bytes: as many peers with addresses of one length as fit.
pub fn serve(bytes: usize) -> Serve {
    let prepared: Arc<[u8]> = prepared(bytes).into();
    Arc::new(move |_, stream| {
        let prepared = prepared.clone();
        tokio::spawn(async move {
            // The other side ends the stream.
            let _ = echo(stream, &prepared).await;
        });
    })
}

/// Returns a framed answer that can be decoded, at most 45 bytes shorter than `bytes`.
fn prepared(bytes: usize) -> Vec<u8> {
    let addr: Multiaddr = "/ip4/127.0.0.1/tcp/4001".parse().unwrap();
    let peer = EncodedPeer::new(&PeerId::random(), [&addr]);
    let peers = bytes / (peer.as_bytes().len() + 2);
    answer(MessageType::FindNode, &[], None, None, std::iter::repeat_n(&peer, peers)).to_vec()
}

async fn echo(mut stream: Stream, prepared: &[u8]) -> std::io::Result<()> {
    let (mut input, mut filled, mut out) = (vec![0; BATCH], 0, Vec::new());
    loop {
        let read = stream.read(&mut input[filled..]).await?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        let mut at = 0;
        while let Ok(Header::Complete { header, body }) = frame::header(&input[at..filled], BATCH - 8)
            && filled - at >= header + body
        {
            // Decodes only as much as distinguishes an announcement from a question.
            let is_question = !input[at + header..].starts_with(&[0x08, MessageType::AddProvider as u8]);
            if is_question {
                out.extend_from_slice(prepared);
            }
            at += header + body;
            if out.len() >= BATCH {
                stream.write_all(&out).await?;
                out.clear();
            }
        }
        input.copy_within(at..filled, 0);
        filled -= at;
        if at > 0 {
            stream.write_all(&out).await?;
            stream.flush().await?;
            out.clear();
        }
    }
}

/// Answers every question with this peer. Neighbours use it: a peer that names no other does not enter our routing
/// table.
pub fn naming(peer: &PeerInfo) -> Serve {
    let peer = EncodedPeer::new(&peer.id, &peer.addrs);
    Arc::new(move |_, mut stream: Stream| {
        let peer = peer.clone();
        tokio::spawn(async move {
            let (mut input, mut filled) = (vec![0; 4096], 0);
            while let Ok(read @ 1..) = stream.read(&mut input[filled..]).await {
                filled += read;
                while let Ok(Header::Complete { header, body }) = frame::header(&input[..filled], 4096)
                    && filled >= header + body
                {
                    let Ok(message) = Message::decode(&input[header..header + body]) else { return };
                    let told = answer(message.kind, &[], None, None, [&peer]);
                    input.copy_within(header + body..filled, 0);
                    filled -= header + body;
                    if stream.write_all(&told).await.is_err() || stream.flush().await.is_err() {
                        return;
                    }
                }
            }
        });
    })
}
