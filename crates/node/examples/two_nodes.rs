//! Starts two nodes on this machine with records in memory. One announces itself as a provider; the other finds the
//! record.
//!
//! ```text
//! cargo run -p dhtstore-node --example two_nodes
//! ```

#![allow(clippy::print_stdout, reason = "an example prints")]

use dhtstore_host::clock::SystemClock;
use dhtstore_kad::{Dht, scope::Profile};
use dhtstore_node::{Node, Settings};
use dhtstore_records::memory;
use libp2p::identity::Keypair;
use std::{error::Error, time::Duration};

/// The multihash of a CID: SHA2-256, 32 bytes.
const MULTIHASH: [u8; 34] = {
    let mut bytes = [7; 34];
    (bytes[0], bytes[1]) = (0x12, 32);
    bytes
};

async fn start() -> Result<Node, Box<dyn Error>> {
    let clock = SystemClock::new();
    let stores = memory::stores(memory::Settings::default(), clock.clone());
    Ok(Node::start(Settings::on_loopback(Profile::Private), Keypair::generate_ed25519(), stores, clock).await?)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (keeper, publisher) = (start().await?, start().await?);
    let address = keeper.listeners().remove(0).with_p2p(keeper.peer_id()).map_err(|_| "another peer's address")?;
    publisher.connect(address.clone()).await?;
    println!("{} is connected to {address}", publisher.peer_id());
    // Servers enter each other's tables once they have answered a probe.
    while publisher.table(Dht::Wan).is_empty() || keeper.table(Dht::Wan).is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    let [server] =
        publisher.closest_peers(Dht::Wan, &MULTIHASH, None).await.peers.try_into().map_err(|_| "one server")?;
    let delivery = publisher.add_providers(Dht::Wan, &server, &[MULTIHASH.to_vec()]).await;
    println!("announced to {}: {} confirmed", server.id, delivery.confirmed());

    for provider in keeper.find_providers(&MULTIHASH, 20, None).await {
        println!("{} provides it, at {:?}", provider.id, provider.addrs);
    }
    keeper.shutdown().await;
    publisher.shutdown().await;
    Ok(())
}
