//! The clients that are served. When all places are taken, a client that neither sends nor reads makes room for a new
//! one.

use parking_lot::{Mutex, MutexGuard};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Time after which a client that has not sent a whole request or read a reply may have to give way. With a shorter
/// time an honest client on a busy machine would lose its place; with a longer one, waiting clients would be turned
/// away.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// Orders the moments at which clients became slow.
static MOMENTS: AtomicU64 = AtomicU64::new(1);

/// A client that is served.
#[derive(Debug, Default)]
pub struct Client {
    /// When it became slow, in [`MOMENTS`]; 0 while it is not slow.
    slow_since: AtomicU64,
    gone: CancellationToken,
}

impl Client {
    /// Marks the client as slow: it neither sends nor reads.
    pub fn is_slow(&self) {
        self.slow_since.store(MOMENTS.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Marks the client as active again.
    pub fn moves(&self) {
        self.slow_since.store(0, Ordering::Relaxed);
    }

    /// Waits until the client has to give way.
    pub async fn gives_way(&self) {
        self.gone.cancelled().await;
    }
}

/// Clients that hold a place of some kind. Bounded by the number of places.
#[derive(Clone, Debug, Default)]
pub struct Clients(Arc<Mutex<Vec<Arc<Client>>>>);

/// An entry in [`Clients`], which is removed when this value is dropped.
#[derive(Debug)]
pub struct Listed(Clients, Arc<Client>);

impl Clients {
    /// Adds a client.
    pub fn list(&self, client: Arc<Client>) -> Listed {
        self.lock().push(client.clone());
        Listed(self.clone(), client)
    }

    /// Makes the client that has been slow for the longest time give way. Returns false if no client is slow.
    pub fn make_room(&self) -> bool {
        let clients = self.lock();
        let slow = |client: &&Arc<Client>| client.slow_since.load(Ordering::Relaxed) > 0 && !client.gone.is_cancelled();
        let slowest = clients.iter().filter(slow).min_by_key(|client| client.slow_since.load(Ordering::Relaxed));
        slowest.inspect(|client| client.gone.cancel()).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Client>>> {
        self.0.lock()
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.0.lock().retain(|client| !Arc::ptr_eq(client, &self.1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_been_slow_for_the_longest_gives_way_and_nobody_else() {
        let clients = Clients::default();
        let listed: Vec<Listed> = (0..3).map(|_| clients.list(Arc::default())).collect();
        assert!(!clients.make_room());
        listed[2].1.is_slow();
        listed[0].1.is_slow();
        assert!(clients.make_room());
        assert!(listed[2].1.gone.is_cancelled() && !listed[0].1.gone.is_cancelled());
        listed[0].1.moves();
        assert!(!clients.make_room());
        drop(listed);
        assert!(clients.lock().is_empty());
    }
}
