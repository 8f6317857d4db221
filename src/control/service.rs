//! What the running node answers on its control socket.

mod diagnose;
mod find;
pub mod inspect;
mod own;
mod values;

use super::{
    protocol::{Failure, Request},
    server::{Bulk, Clients, Handler, PATIENCE, Replies, done},
};
use crate::{
    kad::{Cid, Dht, PeerInfo, cids},
    node::query::Event,
    ops::{Ops, Parts},
    schedule::jobs,
    store::{self, dump::Want, load::Loader},
};
use parking_lot::Mutex;
use serde_json::Value;
use std::{pin::Pin, sync::Arc};
use tokio::sync::{Semaphore, mpsc};

/// Dumps that run at the same time; each keeps a thread.
const DUMPS_MAX: usize = 4;
/// Events of a query that wait for the client.
const EVENTS: usize = 256;

/// Answers requests by the operations of a daemon. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Service {
    ops: Ops,
    dumps: Arc<Semaphore>,
    /// Who they are for.
    dumping: Clients,
    loader: Arc<Mutex<Loader>>,
}

impl Service {
    /// Answers with these operations.
    pub fn new(ops: Ops) -> Self {
        let loader = Arc::new(Mutex::new(Loader::new(ops.parts().store.clone())));
        let dumps = Arc::new(Semaphore::new(DUMPS_MAX));
        Self { ops, dumps, dumping: Clients::default(), loader }
    }
}

impl Handler for Service {
    async fn handle(&self, request: Request, replies: Replies) -> Result<Value, Failure> {
        let parts = self.ops.parts();
        match request {
            Request::Provide { cids } => done(&own::provide(parts, cids).await?),
            Request::Unprovide { cids } => done(&own::unprovide(parts, cids).await?),
            Request::Own { cids } => own::rows(parts, cids, replies).await,
            Request::Announce { which } => done(&own::announce(parts, which, replies).await?),
            Request::Verify { cids } => own::verify(parts, cids, replies).await,
            Request::FindProviders { cid, limit, local } => {
                let limit = limit.clamp(1, find::PROVIDERS_MAX);
                if local {
                    find::local_providers(parts, &cid, limit, replies).await
                } else {
                    find::providers(parts, &cid, limit, replies).await
                }
            }
            Request::FindPeer { peer } => find::peer(parts, &peer, replies).await,
            Request::Closest { key, local } => find::closest(parts, &key, local, replies).await,
            Request::GetValue { key, local: true, .. } => values::local(parts, &key, replies).await,
            Request::GetValue { key, quorum, local: false } => values::get(parts, &key, quorum, replies).await,
            Request::PutValue { key, record } => values::put(parts, &key, &record, replies).await,
            Request::Connect { address } => find::connect(parts, &address).await,
            Request::Peers => {
                for peer in parts.node.peers().await {
                    replies.row(&peer).await?;
                }
                Ok(Value::Null)
            }
            Request::Stat => done(&inspect::stat(parts).await?),
            Request::Diagnose { cid } => done(&diagnose::diagnose(parts, &cid, replies).await?),
            Request::Dump { filter, count, hash, lines } => {
                let place = match self.dumps.try_acquire() {
                    // A pager whose reader sleeps, say.
                    Err(_) if self.dumping.make_room() => {
                        tokio::time::timeout(PATIENCE, self.dumps.acquire()).await.ok().and_then(Result::ok)
                    }
                    place => place.ok(),
                };
                let Some(_place) = place else {
                    return Err(Failure::busy(format_args!("{DUMPS_MAX} dumps are under way; try again")));
                };
                let _listed = self.dumping.list(replies.client());
                let (before, after) = Bulk::ROW;
                let want = match (hash, count) {
                    (true, _) => Want::Hash,
                    (_, true) => Want::Count,
                    _ if lines => Want::NDJSON,
                    _ => Want::Lines { before, after },
                };
                done(&inspect::dump(parts, filter, want, replies).await?)
            }
            Request::SaveRouting => {
                let uptime = parts.clock.monotonic().saturating_sub(parts.started);
                done(
                    &jobs::save_routing(parts.node.clone(), parts.store.clone(), uptime)
                        .await
                        .map_err(Failure::other)?,
                )
            }
            Request::Check => {
                let store = parts.store.clone();
                let found = tokio::task::spawn_blocking(move || store::check::running(&store)).await;
                for finding in found.map_err(Failure::other)? {
                    replies.row(&finding).await?;
                }
                Ok(Value::Null)
            }
            Request::Load { lines, first, provided, flush } => {
                done(&inspect::load(parts, self.loader.clone(), (lines, first), provided, flush).await?)
            }
        }
    }
}

fn parse(cid: &str) -> Result<Cid, Failure> {
    cids::parse(cid).map_err(|error| Failure::data(format_args!("{cid}: {error}")))
}

fn parse_all(cids: &[String]) -> Result<Vec<Cid>, Failure> {
    cids.iter().map(|cid| parse(cid)).collect()
}

fn texts<T: ToString>(items: impl IntoIterator<Item = T>) -> Vec<String> {
    items.into_iter().map(|item| item.to_string()).collect()
}

fn to_peer(peer: &PeerInfo) -> super::protocol::Peer {
    super::protocol::Peer { peer: peer.id.to_string(), addresses: texts(&peer.addrs) }
}

/// What this node is announced with: `provide.addresses`, or its own addresses in both DHTs.
fn provider_addresses(parts: &Parts) -> Vec<String> {
    if !parts.config.provide.addresses.is_empty() {
        return texts(&parts.config.provide.addresses);
    }
    own_addresses(parts)
}

/// Our own addresses in both DHTs, each once.
fn own_addresses(parts: &Parts) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for address in Dht::ALL.into_iter().flat_map(|dht| parts.node.addresses(dht)) {
        let address = address.to_string();
        if !all.contains(&address) {
            all.push(address);
        }
    }
    all
}

/// A query under way, and what happens on it. Dropped with the request when the client goes away.
struct Query<F: Future> {
    query: Pin<Box<F>>,
    events: mpsc::Receiver<Event>,
    outcome: Option<F::Output>,
}

impl<F: Future> Query<F> {
    /// `start` is handed the sender of events.
    fn start(start: impl FnOnce(mpsc::Sender<Event>) -> F) -> Self {
        let (sender, events) = mpsc::channel(EVENTS);
        Self { query: Box::pin(start(sender)), events, outcome: None }
    }

    /// The next event; `None` when the query has ended and all its events have been seen.
    async fn event(&mut self) -> Option<Event> {
        if self.outcome.is_none() {
            tokio::select! {
                biased;
                Some(event) = self.events.recv() => return Some(event),
                outcome = &mut self.query => self.outcome = Some(outcome),
            }
        }
        self.events.try_recv().ok()
    }

    /// Passes the events on; then what the query brought.
    async fn finish(mut self, replies: &Replies) -> Result<F::Output, Failure> {
        while let Some(event) = self.event().await {
            replies.event(&event).await?;
        }
        Ok(match self.outcome {
            Some(outcome) => outcome,
            None => self.query.await,
        })
    }
}
