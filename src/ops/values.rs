//! Values: getting the best of the network, putting one.

use super::{Ops, OpsError, QueryEvent, underway::Underway};
use crate::{
    clock::UnixTime,
    kad::values::{
        self,
        ipns::{self, Record},
    },
    node::lookup::values::QUORUM,
    store::{StoreError, values::Refused},
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
    /// When this node received it; `None` for one of the network.
    pub received: Option<UnixTime>,
}

/// What happens while a value is looked for.
#[derive(Clone, Debug)]
pub enum ValueEvent {
    /// A step of the look-up, or of correcting servers.
    Step(QueryEvent),
    /// The best value, once.
    Best(Value),
}

/// What getting a value brought.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Got {
    /// The best value.
    pub value: Option<Value>,
    /// Distinct servers that hold it.
    pub held_by: usize,
    /// Distinct servers that answered.
    pub answered: usize,
    /// Servers that held a worse one or none.
    pub stale: usize,
    /// Of them, those that have taken the best.
    pub corrected: usize,
    /// Of this node's own name: the highest sequence number that was ever published or seen, kept for ever.
    pub kept_sequence: Option<u64>,
}

/// What became of a value that was put.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Placed {
    /// Distinct servers that it was sent to.
    pub sent: usize,
    /// Of them, those that confirmed it.
    pub confirmed: usize,
    /// Why this node itself does not keep it.
    pub not_stored_here: Option<Refused>,
}

impl Ops {
    /// Gets the best value of a key that this node and the closest servers hold, then corrects those that hold a worse one
    /// or none. The value goes to `events` before that. Asks on until `quorum` servers (`None`: 16, VAL-6) hold the same
    /// best.
    pub async fn get_value(&self, key: &[u8], quorum: Option<usize>, events: mpsc::Sender<ValueEvent>) -> Got {
        let (node, quorum) = (&self.handles.node, quorum.unwrap_or(QUORUM));
        let query = Underway::start(|steps| node.find_value(key, quorum, Some(steps)));
        let Some(found) = passed_on(query, &events).await else {
            return Got { kept_sequence: self.kept(key, None).await, ..Got::default() };
        };
        let kept_sequence = self.kept(key, Some(&found.value)).await;
        let value = Value { key: key.to_vec(), value: found.value, received: None };
        // Nobody may listen: the answer is complete all the same.
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

    /// Gets the value of a key that this node itself holds; asks nobody.
    pub async fn local_value(&self, key: &[u8]) -> Got {
        let held = self.handles.store.values.get(key);
        let kept_sequence = self.kept(key, held.as_ref().map(|held| &*held.value)).await;
        let value =
            held.map(|held| Value { key: key.to_vec(), value: held.value.to_vec(), received: Some(held.received) });
        Got { value, kept_sequence, ..Got::default() }
    }

    /// Puts a value: into the own store, then to the closest servers of both DHTs. The sequence number of this node's own
    /// name is kept first.
    ///
    /// # Errors
    /// [`OpsError::BadInput`] for a value that is not valid; [`OpsError::Failed`] if this node holds a better one;
    /// [`OpsError::Store`] if the sequence number of the own name cannot be kept.
    pub async fn put_value(
        &self,
        key: &[u8],
        value: &[u8],
        events: Option<mpsc::Sender<QueryEvent>>,
    ) -> Result<Placed, OpsError> {
        if key == ipns::key(&self.peer_id()) {
            let now = Duration::from_secs(u64::from(self.handles.clock.wall().0));
            values::validate(key, value, now).map_err(|error| OpsError::BadInput(error.to_string()))?;
            // Before anybody else has it.
            if let Ok(record) = Record::decode(value) {
                self.remember(record.sequence).await.map_err(OpsError::Store)?;
            }
        }
        let placed = self.handles.node.place_value(key, value, events).await;
        let (own, placed) = placed.map_err(|refused| match refused {
            Refused::Worse => OpsError::Failed(
                "this node holds a better value of this key: a higher sequence number, or the same and valid for longer; see \
                 `dhtstore get --local`"
                    .to_owned(),
            ),
            refused => OpsError::BadInput(refused.to_string()),
        })?;
        Ok(Placed { sent: placed.sent, confirmed: placed.confirmed, not_stored_here: own.err() })
    }

    /// Of this node's own name the highest sequence number ever, that of `value` among them: what was seen is remembered.
    async fn kept(&self, key: &[u8], value: Option<&[u8]>) -> Option<u64> {
        let own = self.peer_id();
        if key != ipns::key(&own) {
            return None;
        }
        if let Some(record) = value.and_then(|value| Record::decode(value).ok()) {
            // A disk that takes no writes: what is known in memory and on the network still counts.
            if let Err(error) = self.remember(record.sequence).await {
                tracing::warn!(%error, "cannot keep the sequence number of this node's own name");
            }
        }
        self.handles.store.sequences().get(&own).copied()
    }

    async fn remember(&self, sequence: u64) -> Result<(), StoreError> {
        let (store, own) = (self.handles.store.clone(), self.peer_id());
        tokio::task::spawn_blocking(move || store.raise_sequence(&own, sequence))
            .await
            .unwrap_or_else(|error| Err(StoreError::Database(error.into())))
    }
}

/// Passes the steps of a query on; then what it brought.
async fn passed_on<F: Future>(mut query: Underway<QueryEvent, F>, events: &mpsc::Sender<ValueEvent>) -> F::Output {
    while let Some(step) = query.event().await {
        let _ = events.send(ValueEvent::Step(step)).await;
    }
    query.outcome().await
}
