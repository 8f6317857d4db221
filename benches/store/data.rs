//! Announcements that are computed when they are needed, and not stored.

use dhtstore::kad::PeerInfo;
use libp2p::{PeerId, multihash::Multihash};
use rand::{Rng, SeedableRng, rngs::StdRng};
use sha2::{Digest, Sha256};

/// Returns the number of providers: 20,000 for a million records, and up to 200,000 for more records.
pub fn peers_of(records: usize) -> usize {
    (records / 500).clamp(20_000, 200_000)
}

/// Distribution of the records over keys and providers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Keys with one provider have 70 % of the records, and keys with ten have 30 %.
    Usual,
    /// Every tenth record, up to 100,000 of them, is of one key; the others are as usual.
    OneKey,
    /// All records are of one provider, with a key each.
    OneProvider,
    /// Each record has a key of its own, and the SHA-256 of every multihash begins with the same bits, as if an
    /// attacker had made them for one region of the keyspace. Each of these bits doubles the cost of making a key.
    Ground,
}

/// Leading bits that these keys share: making one such key takes 64 attempts on average.
const GROUND_BITS: u32 = 6;
/// Maximum number of providers of the one key.
const OF_ONE_KEY: usize = 100_000;

pub struct Data {
    records: usize,
    single: usize,
    peers: usize,
    /// Coprime to `records`, so that steps of this size visit each record once, in an order that favours no table.
    step: usize,
    shape: Shape,
    /// The attempt that made each of the ground keys.
    tries: std::sync::Arc<[u32]>,
}

impl Data {
    pub fn new(records: usize, shape: Shape) -> Self {
        let mut step = (records as f64 * 0.618_033) as usize | 1;
        while gcd(step, records) != 1 {
            step += 2;
        }
        let single = if shape == Shape::OneProvider || shape == Shape::Ground { records } else { records * 7 / 10 };
        let peers = match shape {
            Shape::OneKey => peers_of(records).max(OF_ONE_KEY),
            Shape::OneProvider => 1,
            _ => peers_of(records),
        };
        let ground = |key| (0..).find(|n| Sha256::digest(ground(key, *n))[0] >> (8 - GROUND_BITS) == 0).unwrap();
        let tries = if shape == Shape::Ground { (0..records).map(ground).collect() } else { [].into() };
        Self { records, single, peers, step, shape, tries }
    }

    pub fn keys(&self) -> usize {
        self.single + (self.records - self.single) / 10
    }

    /// Returns the number of records of the one key.
    fn of_one_key(&self) -> usize {
        if self.shape == Shape::OneKey { (self.records / 10).min(OF_ONE_KEY) } else { 0 }
    }

    /// Returns announcement `i`: its multihash and the number of its provider. Always the same for the same `i`.
    pub fn record(&self, i: usize) -> ([u8; 34], usize) {
        let n = (i as u128 * self.step as u128 % self.records as u128) as usize;
        if n < self.of_one_key() {
            return (THE_ONE_KEY, n);
        }
        let (key, nth) = match n < self.single {
            true => (n, 0),
            false => (self.single + (n - self.single) / 10, n % 10),
        };
        // A key has ten different providers.
        let multihash = if self.shape == Shape::Ground { ground(key, self.tries[key]) } else { multihash(key) };
        (multihash, (key * 7919 + nth) % self.peers)
    }

    /// Returns a function that draws stored keys.
    pub fn hits(&self) -> impl Fn(usize) -> [u8; 34] {
        let mut random = StdRng::seed_from_u64(2);
        let chosen: Vec<usize> = (0..1 << 16).map(|_| random.random_range(0..self.records)).collect();
        let step = self.records / chosen.len() + 1;
        let data = Data { tries: self.tries.clone(), ..*self };
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

/// Returns a key that is not stored.
pub fn miss(n: usize) -> [u8; 34] {
    multihash(usize::MAX - n)
}

fn multihash(key: usize) -> [u8; 34] {
    let mut bytes = [0; 34];
    bytes[..2].copy_from_slice(&[0x12, 0x20]);
    bytes[2..].copy_from_slice(&Sha256::digest(key.to_le_bytes()));
    bytes
}

/// The key with a hundred thousand providers.
pub const THE_ONE_KEY: [u8; 34] = [0x12; 34];

/// Makes one attempt at a key whose position begins with zeros.
fn ground(key: usize, attempt: u32) -> [u8; 34] {
    let mut bytes = multihash(key);
    bytes[30..].copy_from_slice(&attempt.to_le_bytes());
    bytes
}

/// Reads an announcement, so that its bytes are in the processor's caches, as they are after it was decoded from a
/// message.
pub fn arrive(info: &PeerInfo) -> u64 {
    let sum = |bytes: &[u8]| bytes.iter().fold(0u64, |sum, byte| sum.wrapping_add(u64::from(*byte)));
    let addrs: u64 = info.addrs.iter().map(|addr| sum(addr.as_ref())).sum();
    addrs + sum(AsRef::<Multihash<64>>::as_ref(&info.id).digest())
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}
