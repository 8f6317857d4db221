//! Runs our node in this process, on a store that stalls. Each look-up of providers reads the clock, and this clock
//! puts the thread to sleep at every [`STALL_EVERY`]th read. Our store never reads from the disk for a request. This
//! benchmark shows what such reads would cost.

use super::stock::{STALL, STALL_EVERY};
use dhtstore::{
    clock::{Clock, SystemClock, UnixTime},
    config::{Config, Profile},
    node::Node,
    store::{Store, data_dir::Lock},
};
use libp2p::{Multiaddr, identity::Keypair};
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// A clock that sleeps at some of its readings.
#[derive(Debug)]
struct StallingClock {
    clock: Arc<dyn Clock>,
    readings: AtomicU64,
}

/// Returns whether this thread serves requests. The store's threads read the clock too, but must not stall.
fn serves() -> bool {
    std::thread::current().name().is_some_and(|name| name.starts_with("tokio-"))
}

impl StallingClock {
    fn stall(&self) {
        if serves() && self.readings.fetch_add(1, Ordering::Relaxed) % STALL_EVERY == STALL_EVERY - 1 {
            std::thread::sleep(STALL);
        }
    }
}

impl Clock for StallingClock {
    fn wall(&self) -> UnixTime {
        self.clock.wall()
    }

    fn monotonic(&self) -> Duration {
        self.stall();
        self.clock.monotonic()
    }
}

/// Listens and serves.
pub async fn run(keypair: Keypair, dir: &Path, listen: &[Multiaddr], ready: impl FnOnce()) {
    let mut config = Config::defaults(Profile::Private);
    config.listen = listen.to_vec();
    let clock: Arc<dyn Clock> = SystemClock::new();
    let stalling = Arc::new(StallingClock { clock: clock.clone(), readings: AtomicU64::new(0) });
    let lock = Lock::acquire(dir).unwrap();
    let store = Store::open(&lock, config.store_settings(), stalling).unwrap();
    let _node = Node::start(config.node_settings(), keypair, store.stores(), clock).await.unwrap();
    ready();
    std::future::pending::<()>().await;
}
