//! A daemon as a value. Starts one in a temporary directory on loopback, provides a CID, finds its provider, and stops.
//!
//! `cargo run --example daemon`

use dhtstore::{
    config::{Config, Profile},
    daemon::{Daemon, Surroundings},
    kad::{Cid, cids},
};
use std::{error::Error, path::Path, time::Duration};

/// The empty file, as `ipfs add --cid-version 1` names it.
const CID: &str = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku";
/// No step here waits for other peers, so this is enough on any machine.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    tokio::time::timeout(PATIENCE, provide_and_find(&cids::parse(CID)?, dir.path())).await?
}

async fn provide_and_find(cid: &Cid, dir: &Path) -> Result<(), Box<dyn Error>> {
    let daemon = Daemon::start(config(dir)?, Surroundings::default()).await?;
    println!("{} serves on {:?}", daemon.peer_id(), daemon.listeners());

    let ops = daemon.ops();
    let provided = ops.provide(vec![*cid]).await?;
    println!("{} CIDs added; records name {}", provided.added, provided.provider.id);

    // This waits for the end of the look-up. `event` instead of `outcome` would return providers as they are found.
    for provider in ops.finding_providers(cid, 20).outcome().await {
        println!("{cid} is provided by {} at {:?}", provider.id, provider.addrs);
    }

    daemon.stop().await?;
    println!("stopped; all is on disk in {}", dir.display());
    Ok(())
}

/// Returns the settings of a private network on loopback, with a port that the system chooses.
fn config(dir: &Path) -> Result<Config, Box<dyn Error>> {
    let mut config = Config::defaults(Profile::Private);
    config.data_dir = dir.join("data");
    config.listen = vec!["/ip4/127.0.0.1/tcp/0".parse()?];
    Ok(config)
}
