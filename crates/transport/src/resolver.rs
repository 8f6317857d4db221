//! Resolves the host names in addresses. It reads resolv.conf and the hosts file again whenever they have changed, as
//! libc and Go do. These files change when a laptop joins another network, a VPN starts or stops, or a lease is
//! renewed. A service may also start before they are written.

use dhtstore_host::clock::Clock;
use futures::{FutureExt, TryFutureExt, future::BoxFuture};
use libp2p::{
    Multiaddr, Transport,
    core::transport::{Boxed, DialOpts, ListenerId, TransportError, TransportEvent},
    dns,
    multiaddr::Protocol,
};
use parking_lot::{Mutex, MutexGuard};
use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tracing::{info, warn};

/// The files that the resolver reads.
const FILES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];

/// Minimum time between two checks of the files. Dials make these checks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Identifies one state of a file: device, inode, size, and ctime in seconds and nanoseconds. `None` if there is no
/// file.
type State = Option<(u64, u64, u64, i64, i64)>;

/// The outcome that was logged last. All transports that resolve names share it, so that each change is logged once.
#[derive(Clone, Debug, Default)]
pub struct Logged(Arc<Mutex<Outcome>>);

/// The states of the files, and whether they could be read. No states before the first check.
type Outcome = (Vec<State>, bool);

impl Logged {
    /// Returns whether the files have never been checked.
    fn is_untouched(&self) -> bool {
        self.0.lock().0.is_empty()
    }

    /// Returns whether these states, or the outcome of reading the files, differ from what was logged last. Stores the
    /// new ones.
    fn differs(&self, states: &[State], read: bool) -> bool {
        let now = (states.to_vec(), read);
        let mut last = self.0.lock();
        *last != now && {
            *last = now;
            true
        }
    }
}

/// Resolves host names, and dials and listens with another transport.
pub struct Resolver<T> {
    inner: Shared<T>,
    files: Vec<PathBuf>,
    clock: Arc<dyn Clock>,
    resolving: Option<dns::tokio::Transport<Shared<T>>>,
    /// The states of the files when they were last read without an error. Empty before.
    states: Vec<State>,
    /// Monotonic time of the last check.
    looked: Option<Duration>,
    logged: Logged,
}

impl<T: Send + 'static> Resolver<T> {
    pub fn new(inner: Boxed<T>, clock: Arc<dyn Clock>, logged: Logged) -> Self {
        let files = FILES.map(PathBuf::from).to_vec();
        let inner = Shared(Arc::new(Mutex::new(inner)));
        let mut resolver = Self { inner, files, clock, resolving: None, states: Vec::new(), looked: None, logged };
        resolver.look();
        resolver
    }

    /// Reads the files again if they have changed. If that fails, for instance because a file is half written, the old
    /// resolver stays in use and the next dial tries again.
    fn look(&mut self) {
        let now = self.clock.monotonic();
        if self.looked.is_some_and(|at| now.saturating_sub(at) < LOOK_EVERY) {
            return;
        }
        self.looked = Some(now);
        let states: Vec<State> = self.files.iter().map(PathBuf::as_path).map(state).collect();
        if states == self.states {
            return;
        }
        match dns::tokio::Transport::system(self.inner.clone()) {
            Ok(resolving) => {
                let is_first = self.logged.is_untouched();
                if self.logged.differs(&states, true) && !is_first {
                    info!(files = ?self.files, "host names are resolved by the new content of these files");
                }
                (self.resolving, self.states) = (Some(resolving), states);
            }
            Err(error) => {
                if self.logged.differs(&states, false) {
                    let still = match self.resolving {
                        Some(_) => "names are still resolved by their last content",
                        None => "/dns addresses cannot be dialled, all other addresses can",
                    };
                    warn!(%error, files = ?self.files, "the resolver's files cannot be read; until they can, {still}");
                }
            }
        }
    }
}

fn state(path: &Path) -> State {
    let found = fs::metadata(path).ok()?;
    Some((found.dev(), found.ino(), found.len(), found.ctime(), found.ctime_nsec()))
}

fn names_a_host(addr: &Multiaddr) -> bool {
    addr.iter()
        .any(|part| matches!(part, Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_) | Protocol::Dnsaddr(_)))
}

impl<T: Send + 'static> Transport for Resolver<T> {
    type Output = T;
    type Error = io::Error;
    type ListenerUpgrade = <Boxed<T> as Transport>::ListenerUpgrade;
    type Dial = BoxFuture<'static, io::Result<T>>;

    fn listen_on(&mut self, id: ListenerId, addr: Multiaddr) -> Result<(), TransportError<io::Error>> {
        self.inner.lock().listen_on(id, addr)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.lock().remove_listener(id)
    }

    fn dial(&mut self, addr: Multiaddr, opts: DialOpts) -> Result<Self::Dial, TransportError<io::Error>> {
        if !names_a_host(&addr) {
            return self.inner.lock().dial(addr, opts).map(FutureExt::boxed);
        }
        self.look();
        match &mut self.resolving {
            Some(resolving) => {
                let dial = resolving.dial(addr, opts).map_err(|error| error.map(io::Error::other))?;
                Ok(dial.map_err(io::Error::other).boxed())
            }
            None => Err(TransportError::Other(io::Error::other(
                "cannot resolve host names: /etc/resolv.conf cannot be read; correct that file",
            ))),
        }
    }

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        Pin::new(&mut *self.inner.lock()).poll(context)
    }
}

/// A transport with several owners: this module's, for listening, and libp2p's resolver, for dialling.
struct Shared<T>(Arc<Mutex<Boxed<T>>>);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, Boxed<T>> {
        self.0.lock()
    }
}

impl<T: Send + 'static> Transport for Shared<T> {
    type Output = T;
    type Error = io::Error;
    type ListenerUpgrade = <Boxed<T> as Transport>::ListenerUpgrade;
    type Dial = <Boxed<T> as Transport>::Dial;

    fn listen_on(&mut self, id: ListenerId, addr: Multiaddr) -> Result<(), TransportError<io::Error>> {
        self.lock().listen_on(id, addr)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.lock().remove_listener(id)
    }

    fn dial(&mut self, addr: Multiaddr, opts: DialOpts) -> Result<Self::Dial, TransportError<io::Error>> {
        self.lock().dial(addr, opts)
    }

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        Pin::new(&mut *self.lock()).poll(context)
    }
}
