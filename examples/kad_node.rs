//! A plain rust-libp2p DHT server (`libp2p-kad`) as a process, for `tests/interop`: the third kind of node in the mixed
//! network of those tests.
//!
//! `kad_node MULTIADDR SEED` listens on MULTIADDR with the Ed25519 identity of SEED (64 hex digits). It prints its peer
//! id and address, then answers each line of stdin with a line on stdout. It ends at the end of stdin.
//!
//! ```json
//! {"peer": "12D3…", "address": "/ip4/…"}
//! {"op": "join", "addresses": ["/ip4/…/p2p/…"]}    {}
//! {"op": "table"}                                  {"count": 29}
//! {"op": "provide", "cid": "bafk…"}                {}
//! {"op": "find", "cid": "bafk…"}                   {"providers": [{"peer": "12D3…", "addresses": ["/ip4/…"]}]}
//! ```
//!
//! The answer to a request that fails is `{"error": "…"}`. The go node of these tests has the same protocol.
#![allow(clippy::unwrap_used, reason = "a test node ends with the first error")]

use dhtstore::kad::Dht;
use dhtstore_testkit::{
    kad_peer::{KadPeer, Options},
    libp2p_kad::Mode,
};
use libp2p::{Multiaddr, PeerId, StreamProtocol, identity::Keypair, multiaddr::Protocol};
use serde::{Deserialize, Serialize};
use std::io::Write;
use tokio::io::{AsyncBufReadExt, BufReader, stdin};

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
enum Request {
    Join { addresses: Vec<Multiaddr> },
    Table,
    Provide { cid: String },
    Find { cid: String },
}

#[derive(Serialize)]
#[serde(untagged)]
enum Answer {
    Is { peer: String, address: String },
    Done {},
    Count { count: usize },
    Found { providers: Vec<Provider> },
    Error { error: String },
}

#[derive(Serialize)]
struct Provider {
    peer: String,
    addresses: Vec<Multiaddr>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let [listen, seed] = std::env::args().skip(1).collect::<Vec<_>>().try_into().unwrap();
    let mut seed: Vec<u8> =
        (0..seed.len()).step_by(2).map(|at| u8::from_str_radix(&seed[at..at + 2], 16).unwrap()).collect();
    let peer = KadPeer::start_with(Options {
        mode: Mode::Server,
        protocol: StreamProtocol::new(Dht::Lan.protocol()),
        keypair: Keypair::ed25519_from_bytes(&mut seed).unwrap(),
        listen: listen.parse().unwrap(),
    })
    .await;
    say(&Answer::Is { peer: peer.id.to_string(), address: peer.addr.to_string() });
    let mut lines = BufReader::new(stdin()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        let answer = match serde_json::from_str(&line) {
            Ok(request) => answer(&peer, request).await,
            Err(error) => Answer::Error { error: error.to_string() },
        };
        say(&answer);
    }
}

fn say(answer: &Answer) {
    let mut line = serde_json::to_string(answer).unwrap();
    line.push('\n');
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush()).unwrap();
}

async fn answer(peer: &KadPeer, request: Request) -> Answer {
    match request {
        Request::Join { addresses } => {
            for mut address in addresses {
                let Some(Protocol::P2p(other)) = address.pop() else {
                    return Answer::Error { error: "an address without a peer id".to_owned() };
                };
                peer.know(other, address).await;
            }
            peer.bootstrap().await;
            Answer::Done {}
        }
        Request::Table => Answer::Count { count: peer.table_len().await },
        Request::Provide { cid } => match peer.announce(&multihash(&cid)).await {
            true => Answer::Done {},
            false => Answer::Error { error: "announced to nobody in time".to_owned() },
        },
        Request::Find { cid } => {
            let mut providers = Vec::new();
            for id in peer.find_providers(&multihash(&cid)).await {
                providers.push(Provider { peer: id.to_string(), addresses: addresses(peer, id).await });
            }
            Answer::Found { providers }
        }
    }
}

fn multihash(cid: &str) -> Vec<u8> {
    cid.parse::<cid::Cid>().unwrap().hash().to_bytes()
}

/// Returns the addresses of a provider. libp2p-kad returns providers without addresses, so this looks the provider up.
async fn addresses(peer: &KadPeer, provider: PeerId) -> Vec<Multiaddr> {
    if provider == peer.id {
        return vec![peer.addr.clone()];
    }
    let (closest, _) = peer.closest(provider.to_bytes()).await;
    closest.into_iter().find(|found| found.id == provider).map(|found| found.addrs).unwrap_or_default()
}
