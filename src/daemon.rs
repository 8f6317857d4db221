//! The process as a value: [`Daemon::start`] opens the store, starts the node and all that belongs to it, and returns once it
//! serves. `dhtstore run` is one owner of a daemon; tests and examples are others.
//!
//! A daemon has no state outside of this value, so that several can live in one process, each in a data directory of its
//! own. Signals, the limit of open files, logging and systemd are the business of the process ([`crate::cli`]).

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

/// Time allowed for [`Daemon::stop`]: draining, saving and flushing. systemd would wait 90 s before it kills.
pub const STOP_DEADLINE: Duration = Duration::from_secs(30);
/// Time allowed for the last flush once a vital task has panicked.
const LAST_FLUSH: Duration = Duration::from_secs(2);
/// Open files of a process whose store is open, where /proc does not list them.
const FILES_ASSUMED_OPEN: u64 = 40;

/// What the process tells a daemon about itself.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings {
    /// Limit of open files, to which `connections.max` and `max_pending` are lowered. `None` leaves both as configured: the
    /// owner has seen to it.
    pub open_files: Option<u64>,
    /// Returns the number of log lines lost so far, for `stat`.
    pub lost_log_lines: fn() -> u64,
}

impl Default for Surroundings {
    fn default() -> Self {
        Self { open_files: None, lost_log_lines: || 0 }
    }
}

/// A running daemon. [`Daemon::stop`] ends it. Dropped while its runtime runs, it is stopped in the background, and errors are
/// logged.
#[derive(Debug)]
pub struct Daemon {
    /// `None` once [`Daemon::stop`] or [`Daemon::give_up`] has taken it.
    running: Option<Running>,
    ops: Ops,
    vital: Vital,
    socket: PathBuf,
}

/// Everything that runs.
#[derive(Debug)]
struct Running {
    node: Node,
    store: Store,
    schedule: Schedule,
    control: Task,
    reprovide: Task,
    ballast: Task,
    // Held to the end: nobody else opens the directory before the store is closed.
    _lock: Arc<Lock>,
}

/// Ends with the daemon, however that ends.
type Task = AbortOnDropHandle<Option<()>>;

impl Daemon {
    /// Starts a daemon with this configuration. Creates the data directory and an identity where there are none. Returns
    /// once the node listens and the control socket answers; does not wait for peers.
    ///
    /// # Errors
    /// One variant of [`DaemonError`] for each cause. What was started before the failure is stopped and closed, so that the
    /// start can be tried again.
    pub async fn start(config: Config, surroundings: Surroundings) -> Result<Self, DaemonError> {
        let clock: Arc<dyn Clock> = SystemClock::new();
        let started = clock.monotonic();
        // Before anything is made in the name of a node that must not run.
        if let Some(path) = &config.swarm_key {
            SwarmKey::load(path)?;
        }
        let opened = Opened::open(&config, Arc::clone(&clock)).await?;
        // Held until the store is closed, whatever happens.
        let (lock, store) = (Arc::clone(&opened.lock), opened.store.clone());
        let beginning = Beginning { config, surroundings, clock, started };
        match beginning.serve(opened).await {
            Ok(daemon) => Ok(daemon),
            Err(error) => {
                if let Err(error) = store.close().await {
                    tracing::warn!(%error, "cannot close the store after a start that failed");
                }
                drop(lock);
                Err(error)
            }
        }
    }

    /// The node's peer id.
    pub fn peer_id(&self) -> PeerId {
        self.ops.peer_id()
    }

    /// Bound listeners, with the ports that were chosen where the configuration says 0.
    pub fn listeners(&self) -> Vec<Multiaddr> {
        self.ops.listeners()
    }

    /// What the daemon can be asked. A clone may outlive the daemon: its operations fail then, and it keeps the databases open,
    /// so that no daemon of this process can start in the same directory before it is dropped.
    pub fn ops(&self) -> &Ops {
        &self.ops
    }

    /// Path of the control socket.
    pub fn control_socket(&self) -> &Path {
        &self.socket
    }

    /// Watches a task of the owner like those of the daemon: its panic is reported by [`Daemon::failed`].
    pub fn vital(&self) -> &Vital {
        &self.vital
    }

    /// Returns once a vital task has panicked; the daemon is only half a daemon then, see [`Daemon::give_up`].
    pub async fn failed(&self) -> Failed {
        self.vital.failed().await
    }

    /// Closes the control socket, stops jobs, drains requests, saves the routing tables, flushes and closes the store.
    ///
    /// # Errors
    /// [`DaemonError::NotStopped`] after [`STOP_DEADLINE`]; [`DaemonError::Store`] if the store cannot be closed;
    /// [`DaemonError::Failed`] if a vital task has panicked meanwhile.
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

    /// Ends a daemon of which a vital task has panicked. Flushes what the store has taken, as far as that works within 2 s,
    /// and drains nothing.
    pub async fn give_up(mut self) {
        let Some(running) = self.running.take() else { return };
        if !matches!(tokio::time::timeout(LAST_FLUSH, running.store.close()).await, Ok(Ok(()))) {
            tracing::error!("the last seconds of announcements may be lost");
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Without a runtime nothing of it runs any more.
        let (Some(running), Ok(runtime)) = (self.running.take(), Handle::try_current()) else { return };
        runtime.spawn(async move {
            match tokio::time::timeout(STOP_DEADLINE, running.stop()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "cannot stop a daemon that was dropped"),
                Err(_) => tracing::warn!("a daemon that was dropped has not stopped within {STOP_DEADLINE:?}"),
            }
        });
    }
}

/// A start under way, once the store is open.
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
    /// Drains, saves and flushes.
    async fn stop(self) -> Result<(), DaemonError> {
        self.control.abort();
        self.reprovide.abort();
        self.ballast.abort();
        self.schedule.shutdown().await;
        if let Err(error) = self.node.save_routing().await {
            tracing::warn!(%error, "cannot save the routing tables");
        }
        self.node.shutdown().await;
        self.store.close().await?;
        // The socket file goes with the task.
        let _ = self.control.await;
        tracing::info!("stopped");
        Ok(())
    }
}

/// Lowers `connections.max` to the open files that there are, once the store has its own.
fn fit_connections(config: &mut Config, limit: u64) -> Result<(), DaemonError> {
    let open = std::fs::read_dir("/proc/self/fd").map_or(FILES_ASSUMED_OPEN, |files| files.count() as u64);
    // Two for a socket that is looked at before it is bound.
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
                "connections.max and max_pending are lowered to the open files that there are; raise LimitNOFILE (ulimit -Hn)"
            );
            Ok(())
        }
        Err(least) => Err(DaemonError::OpenFiles { limit, least }),
    }
}
