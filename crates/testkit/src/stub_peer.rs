//! A peer that advertises the DHT, and whose streams the test handles. It may, for instance, never answer.

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

/// Starts a peer on TCP over loopback. It runs until the runtime ends.
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

/// Returns a handler that holds streams open and never answers.
pub fn mute() -> Serve {
    let held = std::sync::Mutex::new(Vec::new());
    Arc::new(move |_, stream| held.lock().unwrap().push(stream))
}

/// Returns a handler that answers each FIND_NODE after the delay `after`, with the peers that `closer` returns for its
/// target.
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

/// The state of a peer that reads one request from each stream.
#[derive(Default)]
pub struct Single {
    /// The sender of each announcement that it kept, by multihash.
    pub held: std::sync::Mutex<std::collections::HashMap<Vec<u8>, libp2p::PeerId>>,
    /// Streams opened to it.
    pub streams: std::sync::atomic::AtomicUsize,
}

/// Returns a handler that reads one request from each stream, answers it and closes the stream, as litep2p does.
///
/// It keeps announcements that `takes` allows. If `closes` is set, it closes the stream of an announcement. Otherwise
/// it drops the stream, which resets it while the sender's half is open.
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

/// Returns the key of the next request, or `None` at the end of the stream.
async fn read_target(stream: &mut Stream) -> Option<Vec<u8>> {
    Some(Message::decode(&read_message(stream).await?).ok()?.key.to_vec())
}

/// Returns a handler that drops each stream at once.
pub fn refusing() -> Serve {
    Arc::new(|_, stream| drop(stream))
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    inbound: Inbound,
    identify: identify::Behaviour,
}
