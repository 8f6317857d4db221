//! Values: gets the best value of the network, and puts one.

use super::{Ops, OpsError, QueryEvent, underway::Underway};
use crate::{
    clock::UnixTime,
    kad::values::{
        self,
        ipns::{self, Record},
    },
    node::lookup::values::QUORUM,
    store::values::Refused,
};
use std::time::Duration;
use tokio::sync::mpsc;

/// A value under its key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Value {
    /// `/ipns/` or `/pk/`, and a peer id in bytes.
    pub key: Vec<u8>,
    /// The record.
    pub value: Vec<u8>,
    /// Time at which this node received it; `None` for a value of the network.
    pub received: Option<UnixTime>,
}

/// An event of a search for a value.
#[derive(Clone, Debug)]
pub enum ValueEvent {
    /// A step of the look-up or of the correction of servers.
    Step(QueryEvent),
    /// The best value. It is reported once.
    Best(Value),
}

/// The result of getting a value.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Got {
    /// The best value found.
    pub value: Option<Value>,
    /// The number of distinct servers that hold it.
    pub held_by: usize,
    /// The number of distinct servers that answered.
    pub answered: usize,
    /// The number of servers that held a worse one or none.
    pub stale: usize,
    /// The number of those that accepted the best value.
    pub corrected: usize,
    /// The highest sequence number ever published or seen, if the key is this node's own name. It is kept for ever.
    pub kept_sequence: Option<u64>,
}

/// The result of putting a value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Placed {
    /// The number of distinct servers that it was sent to.
    pub sent: usize,
    /// The number of those that confirmed it.
    pub confirmed: usize,
    /// Why this node itself does not store it.
    pub not_stored_here: Option<Refused>,
}

impl Ops {
    /// Gets the best of the values that this node and the closest servers hold for a key. Asks until `quorum` servers
    /// (`None`: 16, VAL-6) hold the same best value. The value goes to `events`; then it is sent to the servers that
    /// hold a worse one or none.
    pub async fn get_value(&self, key: &[u8], quorum: Option<usize>, events: mpsc::Sender<ValueEvent>) -> Got {
        let (node, quorum) = (&self.handles.node, quorum.unwrap_or(QUORUM));
        let query = Underway::start(|steps| node.find_value(key, quorum, Some(steps)));
        let Some(found) = passed_on(query, &events).await else {
            return Got { kept_sequence: self.kept(key, None).await, ..Got::default() };
        };
        let kept_sequence = self.kept(key, Some(&found.value)).await;
        let value = Value { key: key.to_vec(), value: found.value, received: None };
        // An error means that nobody reads the events. The result is the same.
        let _ = events.send(ValueEvent::Best(value.clone())).await;
        let stale = found.stale.len();
        let corrected = match stale {
            0 => 0,
            _ => {
                let correcting = Underway::start(|steps| node.put_values(key, &value.value, found.stale, Some(steps)));
                passed_on(correcting, &events).await.confirmed
            }
        };
        Got { value: Some(value), held_by: found.held_by, answered: found.answered, stale, corrected, kept_sequence }
    }

    /// Gets the value of a key that this node holds. Asks no other peer.
    pub async fn local_value(&self, key: &[u8]) -> Got {
        let held = self.handles.store.values.get(key);
        let kept_sequence = self.kept(key, held.as_ref().map(|held| &*held.value)).await;
        let value =
            held.map(|held| Value { key: key.to_vec(), value: held.value.to_vec(), received: Some(held.received) });
        Got { value, kept_sequence, ..Got::default() }
    }

    /// Puts a value into the own store, then to the closest servers of both DHTs. For this node's own name the sequence
    /// number is stored first.
    ///
    /// # Errors
    /// [`OpsError::BadInput`] for a value that is not valid; [`OpsError::Failed`] if this node holds a better one;
    /// [`OpsError::Store`] or [`OpsError::Stopped`] if the sequence number cannot be stored.
    pub async fn put_value(
        &self,
        key: &[u8],
        value: &[u8],
        events: Option<mpsc::Sender<QueryEvent>>,
    ) -> Result<Placed, OpsError> {
        if key == ipns::key(&self.peer_id()) {
            let now = Duration::from_secs(u64::from(self.handles.clock.wall().0));
            values::validate(key, value, now).map_err(|error| OpsError::BadInput(error.into()))?;
            // Stores the sequence number before another peer gets the record.
            if let Ok(record) = Record::decode(value) {
                self.remember(record.sequence).await?;
            }
        }
        let placed = self.handles.node.place_value(key, value, events).await;
        let (own, placed) = placed.map_err(|refused| match refused {
            Refused::Worse => OpsError::Failed(
                "this node holds a better value of this key: a higher sequence number, or the same and valid for \
                 longer; see `dhtstore get --local`"
                    .into(),
            ),
            refused => OpsError::BadInput(refused.into()),
        })?;
        Ok(Placed { sent: placed.sent, confirmed: placed.confirmed, not_stored_here: own.err() })
    }

    /// If `key` is this node's own name, raises the stored sequence number to that of `value`, and returns the stored
    /// one. `None` for any other key.
    async fn kept(&self, key: &[u8], value: Option<&[u8]>) -> Option<u64> {
        let own = self.peer_id();
        if key != ipns::key(&own) {
            return None;
        }
        if let Some(record) = value.and_then(|value| Record::decode(value).ok()) {
            // A disk that cannot be written must not fail the look-up.
            if let Err(error) = self.remember(record.sequence).await {
                tracing::warn!(%error, "cannot store the sequence number of this node's own name; the look-up goes on");
            }
        }
        self.handles.store.sequences().get(&own).copied()
    }

    async fn remember(&self, sequence: u64) -> Result<(), OpsError> {
        let (store, own) = (self.handles.store.clone(), self.peer_id());
        // Not converted by `?`, which would report any limit as the limit on own CIDs.
        tokio::task::spawn_blocking(move || store.raise_sequence(&own, sequence)).await?.map_err(OpsError::Store)
    }
}

/// Passes the steps of a query on. Returns its result.
async fn passed_on<F: Future>(mut query: Underway<QueryEvent, F>, events: &mpsc::Sender<ValueEvent>) -> F::Output {
    while let Some(step) = query.event().await {
        let _ = events.send(ValueEvent::Step(step)).await;
    }
    query.outcome().await
}
