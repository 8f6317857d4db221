//! Limits the inbound handshakes under way. A flood of silent connections from one place must not keep other peers out.
//!
//! libp2p-swarm counts pending inbound connections but cannot end one. So the door is a transport around all others:
//! each inbound upgrade holds a ticket and ends when the ticket is withdrawn. [`pending`], which is pure, decides whose
//! ticket that is.

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

/// Age below which a handshake gives way only to newcomers of smaller groups. An honest handshake takes some
/// milliseconds, hundreds on a busy machine; ending it early would waste its cost.
const GRACE: Duration = Duration::from_millis(250);

/// Minimum time between two warnings about handshakes that gave way.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// The inbound handshakes under way.
#[derive(Debug)]
pub(crate) struct Door {
    inner: Mutex<Inner>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct Inner {
    pending: Pending,
    /// One sender for each ticket. Dropping it ends the handshake.
    ends: HashMap<Ticket, oneshot::Sender<()>>,
    warned: Option<Duration>,
}

/// The place of one handshake. Dropping it frees the place.
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

    /// Returns the number of handshakes under way.
    pub(crate) fn pending(&self) -> usize {
        self.lock().pending.len()
    }

    /// Returns the place of a newcomer, or `None` if it is refused.
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
                "peers at these addresses begin more handshakes than they finish, so their oldest handshakes give way \
                 to newcomers; other peers can still connect; block these addresses in the firewall if you do not know \
                 them"
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
