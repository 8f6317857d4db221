//! Figures and stored rows.

use super::{
    super::{
        protocol::{DumpEvent, Failure, Stat, TableStat},
        server::Replies,
    },
    Parts, own_addresses, texts,
};
use crate::{
    kad::Dht,
    store::{
        StoreError,
        dump::{self, Filter, Header, Summary, Told, Want},
        load::{Loader, Report},
    },
};
use parking_lot::Mutex;
use std::sync::Arc;

pub(super) async fn stat(parts: &Parts) -> Result<Stat, Failure> {
    let store = parts.store.clone();
    let figures = tokio::task::spawn_blocking(move || store.stat()).await.map_err(Failure::other)?;
    let tables = Dht::ALL.into_iter().map(|dht| {
        let buckets: Vec<(u16, u64)> =
            parts.node.buckets(dht).into_iter().map(|(cpl, entries)| (cpl, entries.len() as u64)).collect();
        let peers = buckets.iter().map(|(_, peers)| peers).sum();
        TableStat { dht: dht.name().into(), peers, buckets: buckets.into_iter().filter(|&(_, n)| n > 0).collect() }
    });
    let decision = parts.node.mode();
    let mut network = parts.node.counters();
    network.insert("log lines lost".into(), (parts.lost_log_lines)());
    Ok(Stat {
        version: env!("CARGO_PKG_VERSION").into(),
        peer: parts.node.peer_id().to_string(),
        profile: format!("{:?}", parts.config.profile).to_lowercase(),
        connections_max: u64::from(parts.config.connections.max),
        ipns_sequences: parts.store.sequences().into_iter().map(|(peer, n)| (peer.to_string(), n)).collect(),
        bootstrap: parts.node.bootstrap(),
        mode: decision.mode,
        mode_why: decision.why.to_string(),
        uptime_s: parts.clock.monotonic().saturating_sub(parts.started).as_secs(),
        listening: texts(parts.node.listeners()),
        addresses: own_addresses(parts),
        connections: parts.node.peers().await.len() as u64,
        tables: tables.collect(),
        load: parts.node.load(),
        network,
        store: figures,
        reprovide: parts.reprovider.status(),
        jobs: parts.schedule.status().await,
    })
}

/// Streams rows from a thread that may block; it ends when the client is gone.
pub(super) async fn dump(parts: &Parts, filter: Filter, want: Want, replies: Replies) -> Result<Summary, Failure> {
    let (store, peer) = (parts.store.clone(), parts.node.peer_id());
    tokio::task::spawn_blocking(move || {
        let bulk = replies.bulk();
        dump::running(&store, &filter, want, &mut |told| match told {
            Told::Begin { schema, time } => {
                bulk.event(&DumpEvent::Header(Header::new(schema, Some(peer.to_string()), time, &filter)))
            }
            Told::Rows { json, .. } if want == Want::NDJSON => bulk.lines(json),
            Told::Rows { json, .. } => bulk.rows(json),
            Told::Damaged { place, error } => bulk.event(&DumpEvent::Damaged { place, error }),
        })
    })
    .await
    .map_err(Failure::other)?
    .map_err(|error| match error {
        error @ StoreError::BadFilter { .. } => Failure::data(error),
        error => Failure::other(error),
    })
}

/// Takes rows of a dump in, on a thread that may block; one batch at a time.
pub(super) async fn load(
    parts: &Parts,
    loader: Arc<Mutex<Loader>>,
    (lines, first): (String, u64),
    provided: bool,
    flush: bool,
) -> Result<Report, Failure> {
    let load = move || {
        let mut loader = loader.lock();
        loader.load(lines.as_bytes(), first, provided)
    };
    let report = tokio::task::spawn_blocking(load).await.map_err(Failure::other)?.map_err(Failure::other)?;
    if flush {
        parts.store.flush().await.map_err(Failure::other)?;
    }
    Ok(report)
}
