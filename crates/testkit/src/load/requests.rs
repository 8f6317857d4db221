//! Makes requests. Keys, identities and addresses are derived from numbers, so that all servers get the same requests.

use dhtstore_kad::message::{self, EncodedPeer, MessageType};
use libp2p::{Multiaddr, PeerId, identity::Keypair};

/// ADD_PROVIDERs before a request whose answer proves that they were read.
pub const BATCH: u64 = 64;

/// A kind of request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// GET_PROVIDERS of a key that the server holds.
    Hit,
    /// GET_PROVIDERS of a key that it does not hold.
    Miss,
    /// FIND_NODE of a random key.
    FindNode,
    /// ADD_PROVIDERs of new keys, in batches of [`BATCH`] with a FIND_NODE after each batch.
    Add,
    /// ADD_PROVIDERs of new keys, with a FIND_NODE after each of them.
    AddConfirmed,
}

impl Op {
    /// Returns the count of requests that one answer stands for.
    pub fn units(self) -> u64 {
        if self == Op::Add { BATCH } else { 1 }
    }

    /// Returns its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Op::Hit => "GET hit",
            Op::Miss => "GET miss",
            Op::FindNode => "FIND_NODE",
            Op::Add => "ADD",
            Op::AddConfirmed => "ADD, each confirmed",
        }
    }
}

/// Returns identity number `n`.
pub fn identity(n: u64) -> Keypair {
    let mut seed = [0x5a; 32];
    seed[..8].copy_from_slice(&n.to_le_bytes());
    Keypair::ed25519_from_bytes(seed).unwrap()
}

/// Returns the three addresses that identity number `n` announces, as a node with TCP and QUIC does.
pub fn addresses(n: u64) -> Vec<Multiaddr> {
    let [.., a, b, c] = (n as u32).to_be_bytes();
    let texts = [
        format!("/ip4/10.{a}.{b}.{c}/tcp/4001"),
        format!("/ip4/10.{a}.{b}.{c}/udp/4001/quic-v1"),
        format!("/ip6/fd00::{a}:{b}:{c}/tcp/4001"),
    ];
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// Returns key number `n`: a sha2-256 multihash with a pseudo-random digest.
pub fn key(n: u64) -> [u8; 34] {
    let mut key = [0; 34];
    key[..2].copy_from_slice(&[0x12, 0x20]);
    for (part, place) in key[2..].chunks_mut(8).enumerate() {
        place.copy_from_slice(&mixed(n.wrapping_mul(4).wrapping_add(part as u64)).to_le_bytes());
    }
    key
}

/// Mixes the bits of `n` (SplitMix64).
fn mixed(n: u64) -> u64 {
    let mut z = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// First of the key numbers that no server holds.
const ABSENT: u64 = 1 << 60;

/// The requests of one stream.
pub struct Requests {
    what: What,
    random: u64,
    provider: EncodedPeer,
}

enum What {
    Ask {
        op: Op,
        keys: u64,
    },
    /// Announces the keys from `next` on, `batch` at a time.
    Announce {
        next: u64,
        batch: u64,
    },
    Fill {
        next: u64,
        keys: u64,
        providers: u64,
        connection: (u64, u64),
        step: u64,
    },
}

impl Requests {
    /// Returns the requests of stream `number` in run `run`, with identity number `identity`.
    pub fn new(op: Op, keys: u64, run: u64, number: u64, identity: u64) -> Self {
        let what = match op {
            Op::Add | Op::AddConfirmed => {
                What::Announce { next: (1 << 59) | (run << 44) | (number << 28), batch: op.units() }
            }
            op => What::Ask { op, keys },
        };
        Self { what, random: mixed(run << 32 | number), provider: provider(identity) }
    }

    /// Returns this stream's part of announcing the keys 0 to `keys`, each from `providers` connections. `connection`
    /// and `stream` are the number and the count of connections, and of streams on each.
    pub fn filling(keys: u64, providers: u64, connection: (u64, u64), stream: (u64, u64), identity: u64) -> Self {
        let what = What::Fill { next: stream.0, keys, providers, connection, step: stream.1 };
        Self { what, random: 0, provider: provider(identity) }
    }

    /// Appends the next request or batch to `out`. Returns the count of requests that its answer stands for, or `None`
    /// if there are no more.
    pub fn put(&mut self, out: &mut Vec<u8>) -> Option<u64> {
        let random = self.random;
        self.random = self.random.wrapping_add(1);
        match &mut self.what {
            What::Ask { op, keys } => {
                let (kind, n) = match op {
                    Op::Hit => (MessageType::GetProviders, mixed(random) % (*keys).max(1)),
                    Op::Miss => (MessageType::GetProviders, ABSENT | mixed(random) >> 5),
                    _ => (MessageType::FindNode, ABSENT | mixed(random) >> 5),
                };
                out.extend_from_slice(&message::request(kind, &key(n)));
                Some(1)
            }
            What::Announce { next, batch } => {
                let batch = *batch;
                for n in *next..*next + batch {
                    out.extend_from_slice(&message::add_provider(&key(n), &self.provider));
                }
                *next += batch;
                self.barrier(random, out);
                Some(batch)
            }
            What::Fill { next, keys, providers, connection: (number, all), step } => {
                let mut announced = 0;
                while announced < BATCH && *next < *keys {
                    // `providers` neighbouring connections, counted in a ring, provide the same key.
                    if (*number + *all - (*next * 7) % *all) % *all < *providers {
                        out.extend_from_slice(&message::add_provider(&key(*next), &self.provider));
                        announced += 1;
                    }
                    *next += *step;
                }
                if announced == 0 {
                    return None;
                }
                self.barrier(random, out);
                Some(announced)
            }
        }
    }

    fn barrier(&self, random: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(&message::request(MessageType::FindNode, &key(ABSENT | mixed(random) >> 5)));
    }
}

fn provider(n: u64) -> EncodedPeer {
    let id: PeerId = identity(n).public().to_peer_id();
    EncodedPeer::new(&id, &addresses(n))
}
