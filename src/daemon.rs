//! The server as a value. [`Daemon::start`] opens the store, starts the node and everything around it, and returns once
//! it serves. `dhtstore run` owns a daemon, and so do tests and examples.
//!
//! A daemon has no state outside of this value, so a process can have several, each with a data directory of its own.
//! Signals, the limit of open files, logging and systemd belong to the process ([`crate::cli`]).

mod ballast;
mod error;
mod store;

pub use error::DaemonError;

use crate::{
    clock::{Clock, SystemClock},
    config::Config,
    control::{server::Server, service::Service},
    node::Node,
    ops::{
        Handles, Limits, Ops,
        network::{Reprovider, Servers},
    },
    schedule::{Schedule, jobs},
    store::{Store, data_dir::Lock},
    transport::swarm_key::SwarmKey,
    vital::{Failed, Vital},
};
use ballast::Ballast;
use futures::FutureExt;
use libp2p::{Multiaddr, PeerId};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use store::Opened;
use tokio::{runtime::Handle, task::JoinHandle};
use tokio_util::task::AbortOnDropHandle;

/// Time allowed for [`Daemon::stop`] to drain, save and flush. systemd would kill the process after 90 s.
pub const STOP_DEADLINE: Duration = Duration::from_secs(30);
/// Time allowed for the last flush once a vital task has panicked.
const LAST_FLUSH: Duration = Duration::from_secs(2);
/// Number of open files that is assumed for a process with an open store, if /proc does not list them.
const FILES_ASSUMED_OPEN: u64 = 40;

/// Facts about the process that a daemon runs in.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings {
    /// Limit of open files. `connections.max` and `max_pending` are lowered to fit into it. `None` leaves both as
    /// configured.
    pub open_files: Option<u64>,
    /// Returns the number of log lines lost so far, for `stat`.
    pub lost_log_lines: fn() -> u64,
}

impl Default for Surroundings {
    fn default() -> Self {
        Self { open_files: None, lost_log_lines: || 0 }
    }
}

/// A running daemon. [`Daemon::stop`] ends it. A daemon that is dropped stops in the background while its runtime runs,
/// and logs errors.
#[derive(Debug)]
pub struct Daemon {
    /// `None` once [`Daemon::stop`] or [`Daemon::give_up`] has taken it.
    running: Option<Running>,
    ops: Ops,
    vital: Vital,
    socket: PathBuf,
}

/// The running parts of a daemon.
#[derive(Debug)]
struct Running {
    node: Node,
    store: Store,
    schedule: Schedule,
    control: Task,
    reprovide: Task,
    ballast: Task,
    // Held to the end, so that no other process opens the directory before the store is closed.
    _lock: Arc<Lock>,
}

/// A task that ends with the daemon, also if the daemon is dropped.
type Task = AbortOnDropHandle<Option<()>>;

impl Daemon {
    /// Starts a daemon with this configuration. Creates the data directory and an identity if there are none. Returns
    /// once the node listens and the control socket answers. Does not wait for peers.
    ///
    /// # Errors
    /// [`DaemonError`] with a variant for each cause. The parts that were started before are stopped and closed, so the
    /// start can be tried again.
    pub async fn start(config: Config, surroundings: Surroundings) -> Result<Self, DaemonError> {
        let clock: Arc<dyn Clock> = SystemClock::new();
        let started = clock.monotonic();
        // Checked first, so that a node whose swarm key cannot be used creates no files.
        if let Some(path) = &config.swarm_key {
            SwarmKey::load(path)?;
        }
        let opened = Opened::open(&config, Arc::clone(&clock)).await?;
        // Held until the store is closed, also after a failure.
        let (lock, store) = (Arc::clone(&opened.lock), opened.store.clone());
        let beginning = Beginning { config, surroundings, clock, started };
        match beginning.serve(opened).await {
            Ok(daemon) => Ok(daemon),
            Err(error) => {
                if let Err(error) = store.close().await {
                    tracing::warn!(%error, "cannot close the store after a failed start");
                }
                drop(lock);
                Err(error)
            }
        }
    }

    /// Returns the node's peer id.
    pub fn peer_id(&self) -> PeerId {
        self.ops.peer_id()
    }

    /// Returns the bound listeners. A port 0 of the configuration is replaced by the port that the system chose.
    pub fn listeners(&self) -> Vec<Multiaddr> {
        self.ops.listeners()
    }

    /// Returns the operations of the daemon. If a clone outlives the daemon, its operations fail. It also keeps the
    /// databases open: no daemon of this process can start in the same directory before the clone is dropped.
    pub fn ops(&self) -> &Ops {
        &self.ops
    }

    /// Returns the path of the control socket.
    pub fn control_socket(&self) -> &Path {
        &self.socket
    }

    /// Returns the watch over vital tasks. The owner can add its own tasks. [`Daemon::failed`] then reports their
    /// panics too.
    pub fn vital(&self) -> &Vital {
        &self.vital
    }

    /// Returns once a vital task has panicked. The daemon no longer works as a whole then; end it with
    /// [`Daemon::give_up`].
    pub async fn failed(&self) -> Failed {
        self.vital.failed().await
    }

    /// Closes the control socket, stops jobs, drains requests, saves the routing tables, flushes and closes the store.
    ///
    /// # Errors
    /// [`DaemonError::NotStopped`] after [`STOP_DEADLINE`]; [`DaemonError::Store`] if the store cannot be closed;
    /// [`DaemonError::Failed`] if a vital task has panicked before the end.
    pub async fn stop(mut self) -> Result<(), DaemonError> {
        let Some(running) = self.running.take() else { return Ok(()) };
        match tokio::time::timeout(STOP_DEADLINE, running.stop()).await {
            Ok(outcome) => outcome?,
            Err(_) => return Err(DaemonError::NotStopped(STOP_DEADLINE)),
        }
        match self.vital.failed().now_or_never() {
            Some(failed) => Err(failed.into()),
            None => Ok(()),
        }
    }

    /// Ends a daemon after a vital task has panicked. Flushes the store, for up to 2 s, and drains nothing.
    pub async fn give_up(mut self) {
        let Some(running) = self.running.take() else { return };
        if !matches!(tokio::time::timeout(LAST_FLUSH, running.store.close()).await, Ok(Ok(()))) {
            tracing::error!(
                "cannot flush the store; the last seconds of announcements may be lost, \
                earlier ones are on disk"
            );
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // If the runtime is gone, the daemon's tasks have ended already.
        let (Some(running), Ok(runtime)) = (self.running.take(), Handle::try_current()) else { return };
        runtime.spawn(async move {
            match tokio::time::timeout(STOP_DEADLINE, running.stop()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(%error, "cannot stop a dropped daemon in order; what is on disk is consistent")
                }
                Err(_) => tracing::warn!(
                    "cannot stop a dropped daemon within {STOP_DEADLINE:?}; what is on disk is consistent"
                ),
            }
        });
    }
}

/// A start under way, from the moment that the store is open.
struct Beginning {
    config: Config,
    surroundings: Surroundings,
    clock: Arc<dyn Clock>,
    /// Monotonic time at the start.
    started: Duration,
}

impl Beginning {
    async fn serve(mut self, opened: Opened) -> Result<Daemon, DaemonError> {
        let Opened { lock, identity, store, gave_up } = opened;
        self.config.fit_identity(&identity.public().to_peer_id())?;
        for note in store.stat().notes {
            tracing::warn!("{note}");
        }
        if let Some(limit) = self.surroundings.open_files {
            fit_connections(&mut self.config, limit)?;
        }
        let control = Server::bind(&self.config.control_socket()).await?;
        let node = Node::start(self.config.node_settings(), identity, store.stores(), Arc::clone(&self.clock)).await?;
        let reprovider = Reprovider::new(
            Servers(node.clone()),
            store.provided.clone(),
            Arc::clone(&self.clock),
            self.config.reprovide.interval,
        );
        let jobs = jobs::all(&self.config, &store, &node, &reprovider, &self.clock);
        let schedule = match Schedule::start(jobs, store.jobs.clone(), Arc::clone(&self.clock), node.vital()).await {
            Ok(schedule) => schedule,
            Err(error) => {
                node.shutdown().await;
                return Err(error.into());
            }
        };
        let vital = node.vital().clone();
        let reprovide = {
            let reprovider = reprovider.clone();
            vital.watch("reprovider", async move { reprovider.run().await })
        };
        let ballast = Ballast { dir: self.config.data_dir.clone(), reserve: self.config.store.reserve as u64, gave_up };
        let socket = self.config.control_socket();
        let ops = Ops::new(Handles {
            config: self.config,
            node: node.clone(),
            store: store.clone(),
            reprovider,
            schedule: schedule.clone(),
            clock: self.clock,
            started: self.started,
            lost_log_lines: self.surroundings.lost_log_lines,
            limits: Limits::new(store.clone()),
        });
        let running = Running {
            node,
            store,
            schedule,
            control: task(tokio::spawn(vital.watch("control socket", control.serve(Service::new(ops.clone()))))),
            reprovide: task(tokio::spawn(reprovide)),
            ballast: task(tokio::spawn(vital.watch("ballast", ballast.keep()))),
            _lock: lock,
        };
        Ok(Daemon { running: Some(running), ops, vital, socket })
    }
}

fn task(handle: JoinHandle<Option<()>>) -> Task {
    AbortOnDropHandle::new(handle)
}

impl Running {
    /// Drains requests, saves the routing tables, and flushes and closes the store.
    async fn stop(self) -> Result<(), DaemonError> {
        self.control.abort();
        self.reprovide.abort();
        self.ballast.abort();
        self.schedule.shutdown().await;
        if let Err(error) = self.node.save_routing().await {
            tracing::warn!(%error, "cannot save the routing tables; the next start uses those saved before");
        }
        self.node.shutdown().await;
        self.store.close().await?;
        // The task removes the socket file at its end.
        let _ = self.control.await;
        tracing::info!("stopped");
        Ok(())
    }
}

/// Lowers the limits on connections to what the limit of open files leaves.
fn fit_connections(config: &mut Config, limit: u64) -> Result<(), DaemonError> {
    let open = std::fs::read_dir("/proc/self/fd").map_or(FILES_ASSUMED_OPEN, |files| files.count() as u64);
    // Two for each listener: its socket, and one to test the address before it is bound.
    let used = open + 2 * config.listen.len() as u64;
    match config.connections.fit(limit, used) {
        Ok(None) => Ok(()),
        Ok(Some(wanted)) => {
            tracing::warn!(
                wanted = wanted.max,
                connections = config.connections.max,
                wanted_handshakes = wanted.max_pending,
                handshakes = config.connections.max_pending,
                open_files = limit,
                "connections.max and max_pending are lowered to what the limit of open files allows; raise \
                    LimitNOFILE (ulimit -Hn) to have all"
            );
            Ok(())
        }
        Err(least) => Err(DaemonError::OpenFiles { limit, least }),
    }
}
