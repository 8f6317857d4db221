//! A peer that advertises the DHT and does with its streams whatever the test wants: nothing at all, say.

use crate::inbound::Inbound;
pub use crate::inbound::Serve;
use crate::read_message;
use dhtstore_kad::{
    PeerInfo,
    message::{self, EncodedPeer, Message, MessageType},
};
use futures::{AsyncWriteExt, StreamExt};
use libp2p::{
    Stream, SwarmBuilder, identify,
    identity::Keypair,
    noise,
    swarm::{NetworkBehaviour, SwarmEvent},
    tcp, yamux,
};
use std::{sync::Arc, time::Duration};

/// Starts a peer on TCP over loopback; it runs until the runtime ends.
pub async fn start(keypair: Keypair, serve: Serve) -> PeerInfo {
    let identify = identify::Config::new("ipfs/0.1.0".to_owned(), keypair.public());
    let behaviour = Behaviour { inbound: Inbound { serve }, identify: identify::Behaviour::new(identify) };
    let mut swarm = SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|_| behaviour)
        .unwrap()
        .build();
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            break address;
        }
    };
    let info = PeerInfo { id: *swarm.local_peer_id(), addrs: vec![address] };
    tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
    info
}

/// Holds its streams open and never answers.
pub fn mute() -> Serve {
    let held = std::sync::Mutex::new(Vec::new());
    Arc::new(move |_, stream| held.lock().unwrap().push(stream))
}

/// Answers each FIND_NODE, so long `after` it came, with the peers that `closer` names for its target.
pub fn answering(after: Duration, closer: impl Fn(&[u8]) -> Vec<PeerInfo> + Send + Sync + 'static) -> Serve {
    let closer = Arc::new(closer);
    Arc::new(move |_, mut stream| {
        let closer = closer.clone();
        tokio::spawn(async move {
            while let Some(target) = read_target(&mut stream).await {
                tokio::time::sleep(after).await;
                let named: Vec<_> = closer(&target).iter().map(|p| EncodedPeer::new(&p.id, &p.addrs)).collect();
                let answer = message::answer(MessageType::FindNode, b"", None, [], &named);
                if stream.write_all(&answer).await.is_err() || stream.flush().await.is_err() {
                    return;
                }
            }
        });
    })
}

/// What a peer that reads one request of each stream holds, and what was asked of it.
#[derive(Default)]
pub struct Single {
    /// The sender of each announcement that it has taken, by multihash.
    pub held: std::sync::Mutex<std::collections::HashMap<Vec<u8>, libp2p::PeerId>>,
    /// Streams opened to it.
    pub streams: std::sync::atomic::AtomicUsize,
}

/// Reads one request of each stream, answers it and closes the stream, as litep2p does. Announcements that `takes` allows
/// are kept; their stream is dropped, which resets it while the sender's half is open, or closed if `closes`.
pub fn single(single: Arc<Single>, closes: bool, takes: fn(&[u8]) -> bool) -> Serve {
    Arc::new(move |sender, mut stream| {
        let single = single.clone();
        single.streams.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        tokio::spawn(async move {
            let Some(body) = read_message(&mut stream).await else { return };
            let request = Message::decode(&body).unwrap();
            let holder = single.held.lock().unwrap().get(request.key).copied();
            match request.kind {
                MessageType::AddProvider => {
                    if takes(request.key) {
                        single.held.lock().unwrap().insert(request.key.to_vec(), sender);
                    }
                    if closes {
                        let _ = stream.close().await;
                    }
                    return;
                }
                MessageType::FindNode | MessageType::GetProviders | MessageType::GetValue => {}
                other => panic!("{other:?} is not for this peer"),
            }
            let holder = holder.filter(|_| request.kind == MessageType::GetProviders);
            let holder = holder.map(|holder| EncodedPeer::new(&holder, &[]));
            let answer = message::answer(request.kind, request.key, None, &holder, []);
            let _ = stream.write_all(&answer).await;
            let _ = stream.close().await;
        });
    })
}

/// The key of the next request; `None` at the end of the stream.
async fn read_target(stream: &mut Stream) -> Option<Vec<u8>> {
    Some(Message::decode(&read_message(stream).await?).ok()?.key.to_vec())
}

/// Ends its streams at once.
pub fn refusing() -> Serve {
    Arc::new(|_, stream| drop(stream))
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    inbound: Inbound,
    identify: identify::Behaviour,
}
