//! The scheduled jobs of a daemon.

use super::{Job, Outcome};
use crate::{clock::Clock, config::Config, kad::Dht, node::Node, ops::network::Reprovider, store::Store};
use std::{future::Future, sync::Arc, time::Duration};

/// Time after a start in which the saved peers are verified one by one. A snapshot taken in this time would lose those
/// that are not verified yet.
const VERIFYING: Duration = Duration::from_secs(60);

/// Removes records and values older than their ttl.
pub const GC: &str = "gc";
/// Announces own CIDs that are due. Each CID has its own time, so this job is due at every look.
pub const REPROVIDE: &str = "reprovide";
/// Checks and refills the routing tables (RT-7).
pub const ROUTING_REFRESH: &str = "routing-refresh";
/// Saves the routing tables.
pub const ROUTING_SNAPSHOT: &str = "routing-snapshot";
/// Writes everything to disk.
pub const FLUSH_STATE: &str = "flush-state";

/// Returns all jobs, with their times from the configuration.
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
            async move {
                store.flush().await?;
                Ok(Some("flushed".to_owned()))
            }
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
    let report = store.records.collect_garbage().await?;
    let values = store.values.collect_garbage().await?;
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

/// Saves the routing tables. Returns what it saved. Saves nothing while all tables are empty. Soon after a start it
/// also saves nothing while a table has less than half of its saved peers, because a kill would then lose the others.
pub async fn save_routing(node: Node, store: Store, uptime: Duration) -> Outcome {
    if Dht::ALL.into_iter().all(|dht| node.table(dht).is_empty()) {
        return Ok(None);
    }
    if uptime < VERIFYING {
        let saved = move || Dht::ALL.map(|dht| store.routing.load(dht).len());
        let saved = tokio::task::spawn_blocking(saved).await?;
        if Dht::ALL.into_iter().zip(saved).any(|(dht, saved)| node.table(dht).len() < saved / 2) {
            return Ok(None);
        }
    }
    Ok(Some(node.save_routing().await?))
}
