//! Stores a provider record on disk, closes the store, reopens it and reads the record.
//!
//! ```text
//! cargo run -p dhtstore-store --example keep
//! ```

#![allow(clippy::print_stdout, reason = "an example prints")]

use dhtstore_host::clock::SystemClock;
use dhtstore_kad::{Dht, PeerInfo};
use dhtstore_store::{Settings, Store, data_dir::Lock};
use libp2p_identity::Keypair;
use std::error::Error;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let lock = Lock::acquire(dir.path())?;
    let provider = PeerInfo {
        id: Keypair::ed25519_from_bytes([7; 32])?.public().to_peer_id(),
        addrs: vec!["/ip4/192.0.2.1/tcp/4001".parse()?],
    };

    let store = Store::open(&lock, Settings::default(), SystemClock::new())?;
    println!("{:?}", store.records.add(b"a multihash", &provider, Dht::Wan).await?);
    store.close().await?;
    drop(store);

    let store = Store::open(&lock, Settings::default(), SystemClock::new())?;
    store.records.wait_replayed();
    for found in store.records.providers(b"a multihash", 20, 0).await {
        println!("{} at {:?}, received {}", found.peer, found.addrs, found.received);
    }
    store.close().await?;
    Ok(())
}
