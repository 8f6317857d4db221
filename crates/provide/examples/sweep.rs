//! Announces 1,000 keys to a network of 500 servers in memory, and prints how few requests that takes.
//!
//! ```text
//! cargo run -p dhtstore-provide --example sweep
//! ```

#![allow(clippy::print_stdout, reason = "an example prints")]

use dhtstore_kad::{Dht, PeerInfo, keyspace::Key, table::K};
use dhtstore_provide::{
    Delivery, Network,
    deliver::{Item, Sweep},
};
use libp2p_identity::PeerId;
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// A network in which look-ups are correct and every server confirms.
#[derive(Clone)]
struct Model {
    servers: Arc<BTreeMap<Key, PeerInfo>>,
    batches: Arc<AtomicUsize>,
}

impl Model {
    fn closest_to(&self, key: &Key, n: usize) -> Vec<PeerInfo> {
        let mut servers: Vec<_> = self.servers.iter().collect();
        servers.sort_by_key(|(place, _)| place.distance(key));
        servers.into_iter().take(n).map(|(_, server)| server.clone()).collect()
    }
}

impl Network for Model {
    fn servers(&self, dht: Dht) -> usize {
        if dht == Dht::Wan { self.servers.len() } else { 0 }
    }

    fn known(&self, _: Dht, key: &Key, n: usize) -> Vec<PeerInfo> {
        self.closest_to(key, n)
    }

    async fn closest(&self, _: Dht, target: &[u8]) -> Vec<PeerInfo> {
        self.closest_to(&dhtstore_kad::rules::target_key(target), K)
    }

    async fn add_providers(&self, _: Dht, _: &PeerInfo, multihashes: &[Vec<u8>]) -> Delivery {
        self.batches.fetch_add(1, Ordering::Relaxed);
        Delivery { read: (0..multihashes.len()).collect(), error: None }
    }
}

fn multihash(n: u32) -> Vec<u8> {
    [&[0x12, 32][..], &Sha256::digest(n.to_be_bytes())].concat()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let servers: Result<BTreeMap<Key, PeerInfo>, _> = (0..500)
        .map(|n| PeerId::from_bytes(&multihash(n)).map(|id| (Key::for_peer(&id), PeerInfo { id, addrs: Vec::new() })))
        .collect();
    let network = Model { servers: Arc::new(servers?), batches: Arc::default() };
    let mut items: Vec<Item> = (1_000..2_000).map(multihash).map(|hash| (Key::for_content(&hash), hash)).collect();
    items.sort();

    let mut sweep = Sweep::new(1);
    let report = sweep.announce(&network, &items).await.ok_or("there are no servers")?;
    let least = report.confirmed.iter().min().copied().unwrap_or(0);
    println!("{} keys, each confirmed by {least} servers or more", report.confirmed.len());
    println!("{} look-ups, {} batches of ADD_PROVIDERs", sweep.lookups, network.batches.load(Ordering::Relaxed));
    println!("key by key it would take {} look-ups and {} requests", items.len(), K * items.len());
    Ok(())
}
