//! The door: which handshakes of strangers go on. A silent flood from one place must not keep out everybody else.
//!
//! libp2p-swarm counts pending inbound connections but cannot end one, so the door is a transport around all others: each
//! inbound upgrade holds a ticket, and ends when its ticket gives way. Whose does is decided by [`pending`], which is pure.

mod guarded;
mod pending;

pub(crate) use guarded::Guarded;
pub(crate) use pending::Group;

use crate::{clock::Clock, metrics::Metrics, settings::Connections};
use libp2p::Multiaddr;
use parking_lot::{Mutex, MutexGuard};
use pending::{Arrival, Pending, Ticket};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::sync::oneshot;

/// A handshake that is younger than this gives way to newcomers of smaller groups only: an honest one takes milliseconds, on
/// a busy machine hundreds, and what it has cost would be lost.
const GRACE: Duration = Duration::from_millis(250);

/// The log names the source of handshakes that gave way once in so long.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// Pending inbound handshakes.
#[derive(Debug)]
pub(crate) struct Door {
    inner: Mutex<Inner>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct Inner {
    pending: Pending,
    /// To end them: dropped, the handshake ends. One for each ticket.
    ends: HashMap<Ticket, oneshot::Sender<()>>,
    warned: Option<Duration>,
}

/// A handshake's place, until this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    door: Arc<Door>,
    ticket: Ticket,
    group: Group,
    gives_way: oneshot::Receiver<()>,
}

impl Door {
    pub(crate) fn new(limits: &Connections, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Self {
        let pending = Pending::new(limits.max_pending as usize, limits.max_pending_per_group as usize, GRACE);
        Self { inner: Mutex::new(Inner { pending, ends: HashMap::new(), warned: None }), clock, metrics }
    }

    /// Handshakes under way.
    pub(crate) fn pending(&self) -> usize {
        self.lock().pending.len()
    }

    /// A newcomer's place; `None` if it is turned away.
    fn arrives(self: &Arc<Self>, from: &Multiaddr) -> Option<Place> {
        let group = Group::of(from);
        let now = self.clock.monotonic();
        let mut inner = self.lock();
        let arrival = inner.pending.arrives(group, now);
        let (ticket, crowd) = match arrival {
            Arrival::Enters(ticket) => (Some(ticket), None),
            Arrival::Replaces { ticket, gone, of } => {
                inner.ends.remove(&gone);
                self.metrics.handshakes_gave_way.inc();
                (Some(ticket), Some(of))
            }
            Arrival::Refused { crowd } => {
                self.metrics.handshakes_refused.inc();
                (None, Some(crowd))
            }
        };
        if let Some(crowd) = crowd
            && inner.warned.is_none_or(|at| now.saturating_sub(at) >= WARN_EVERY)
        {
            inner.warned = Some(now);
            let (handshakes, most) = (inner.pending.of(&crowd), inner.pending.len());
            tracing::warn!(
                from = %crowd,
                handshakes,
                of = most,
                "more handshakes are begun there than finished: the oldest give way to newcomers; if that place is not \
                 known to you, shut it out with a firewall"
            );
        }
        let ticket = ticket?;
        let (end, gives_way) = oneshot::channel();
        inner.ends.insert(ticket, end);
        Some(Place { door: self.clone(), ticket, group, gives_way })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inner = self.door.lock();
        inner.pending.leaves(self.group, self.ticket);
        inner.ends.remove(&self.ticket);
    }
}
