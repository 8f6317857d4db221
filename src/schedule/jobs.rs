//! The jobs of a node.

use super::{Job, Outcome};
use crate::{clock::Clock, config::Config, kad::Dht, node::Node, ops::network::Reprovider, store::Store};
use std::{future::Future, sync::Arc, time::Duration};

/// After a start the saved peers are verified one by one; until then a snapshot would lose those still waiting.
const VERIFYING: Duration = Duration::from_secs(60);

/// Removes records and values older than their ttl.
pub const GC: &str = "gc";
/// Announces own CIDs that are due; each CID has its own time, so this looks at every tick.
pub const REPROVIDE: &str = "reprovide";
/// Checks and refills the routing tables (RT-7).
pub const ROUTING_REFRESH: &str = "routing-refresh";
/// Saves the routing tables.
pub const ROUTING_SNAPSHOT: &str = "routing-snapshot";
/// Brings everything to disk.
pub const FLUSH_STATE: &str = "flush-state";

/// All jobs, with their times from the configuration.
pub fn all(config: &Config, store: &Store, node: &Node, reprovider: &Reprovider, clock: &Arc<dyn Clock>) -> Vec<Job> {
    let jobs = &config.jobs;
    let gc = {
        let store = store.clone();
        move || collect_garbage(store.clone())
    };
    let reprovide = {
        let reprovider = reprovider.clone();
        move || {
            let reprovider = reprovider.clone();
            async move { Ok(Some(reprovider.look().await)) }
        }
    };
    let refresh = {
        let node = node.clone();
        move || {
            let node = node.clone();
            async move { Ok(Some(node.refresh_routing().await)) }
        }
    };
    let snapshot = {
        let (node, store, clock) = (node.clone(), store.clone(), Arc::clone(clock));
        let started = clock.monotonic();
        move || {
            let uptime = clock.monotonic().saturating_sub(started);
            save_routing(node.clone(), store.clone(), uptime)
        }
    };
    let flush = {
        let store = store.clone();
        move || {
            let store = store.clone();
            async move { store.flush().await.map(|()| Some("flushed".to_owned())).map_err(|error| error.to_string()) }
        }
    };
    vec![
        job(GC, &jobs.gc.cron, jobs.gc.interval, gc),
        job(REPROVIDE, &jobs.reprovide.cron, Duration::ZERO, reprovide),
        job(ROUTING_REFRESH, &jobs.routing_refresh.cron, jobs.routing_refresh.interval, refresh),
        job(ROUTING_SNAPSHOT, &jobs.routing_snapshot.cron, jobs.routing_snapshot.interval, snapshot),
        job(FLUSH_STATE, &jobs.flush_state.cron, jobs.flush_state.interval, flush),
    ]
}

fn job<F, R>(name: &'static str, cron: &str, interval: Duration, run: F) -> Job
where
    F: Fn() -> R + Send + Sync + 'static,
    R: Future<Output = Outcome> + Send + 'static,
{
    Job { name, cron: cron.to_owned(), interval, run: Box::new(move || Box::pin(run())) }
}

async fn collect_garbage(store: Store) -> Outcome {
    let report = store.records.collect_garbage().await.map_err(|error| error.to_string())?;
    let values = store.values.collect_garbage().await.map_err(|error| error.to_string())?;
    Ok(Some(match report.paused.or(values.paused) {
        Some(reason) => format!("waits: {reason}"),
        None => {
            format!(
                "{} records and {} values expired, {} chunks removed",
                report.expired, values.expired, report.chunks
            )
        }
    }))
}

/// Says what it saved. Not while a table is empty or, soon after a start, still far from what was saved: a kill would lose the rest.
pub async fn save_routing(node: Node, store: Store, uptime: Duration) -> Outcome {
    if Dht::ALL.into_iter().all(|dht| node.table(dht).is_empty()) {
        return Ok(None);
    }
    if uptime < VERIFYING {
        let saved = move || Dht::ALL.map(|dht| store.routing.load(dht).len());
        let saved = tokio::task::spawn_blocking(saved).await.map_err(|error| error.to_string())?;
        if Dht::ALL.into_iter().zip(saved).any(|(dht, saved)| node.table(dht).len() < saved / 2) {
            return Ok(None);
        }
    }
    node.save_routing().await.map(Some).map_err(|error| error.to_string())
}
