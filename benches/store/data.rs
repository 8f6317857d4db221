//! Announcements, computed and not kept.

use dhtstore::kad::PeerInfo;
use libp2p::{PeerId, multihash::Multihash};
use rand::{Rng, SeedableRng, rngs::StdRng};
use sha2::{Digest, Sha256};

/// Providers: some 20,000 are seen with a million records, more with more.
pub fn peers_of(records: usize) -> usize {
    (records / 500).clamp(20_000, 200_000)
}

pub struct Data {
    records: usize,
    single: usize,
    peers: usize,
    /// Coprime to `records`: steps of it visit each record once, in no order that a table would like.
    step: usize,
}

impl Data {
    pub fn new(records: usize) -> Self {
        let mut step = (records as f64 * 0.618_033) as usize | 1;
        while gcd(step, records) != 1 {
            step += 2;
        }
        Self { records, single: records * 7 / 10, peers: peers_of(records), step }
    }

    pub fn keys(&self) -> usize {
        self.single + (self.records - self.single) / 10
    }

    /// Announcement `i`: the multihash and the number of its provider. The same for the same `i`.
    pub fn record(&self, i: usize) -> ([u8; 34], usize) {
        let n = (i as u128 * self.step as u128 % self.records as u128) as usize;
        let (key, nth) = match n < self.single {
            true => (n, 0),
            false => (self.single + (n - self.single) / 10, n % 10),
        };
        // Ten different ones for a key.
        (multihash(key), (key * 7919 + nth) % self.peers)
    }

    /// A key that is there, at random.
    pub fn hits(&self) -> impl Fn(usize) -> [u8; 34] {
        let mut random = StdRng::seed_from_u64(2);
        let chosen: Vec<usize> = (0..1 << 16).map(|_| random.random_range(0..self.records)).collect();
        let step = self.records / chosen.len() + 1;
        let data = Data { ..*self };
        move |n| data.record((chosen[n % chosen.len()] + n / chosen.len() * step) % data.records).0
    }

    pub fn peer_infos(&self) -> Vec<PeerInfo> {
        let peer = |n: usize| {
            let id = PeerId::from_multihash(Multihash::wrap(0x12, &Sha256::digest(n.to_le_bytes())).unwrap()).unwrap();
            let addr = |port: usize| format!("/ip4/10.{}.{}.1/tcp/{port}", n / 250 % 250, n % 250).parse().unwrap();
            PeerInfo { id, addrs: vec![addr(4001), addr(4002)] }
        };
        (0..self.peers).map(peer).collect()
    }
}

/// Of a key that is not there.
pub fn miss(n: usize) -> [u8; 34] {
    multihash(usize::MAX - n)
}

fn multihash(key: usize) -> [u8; 34] {
    let mut bytes = [0; 34];
    bytes[..2].copy_from_slice(&[0x12, 0x20]);
    bytes[2..].copy_from_slice(&Sha256::digest(key.to_le_bytes()));
    bytes
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}
