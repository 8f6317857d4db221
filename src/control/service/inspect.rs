//! Figures and stored rows.

use super::{
    super::{
        protocol::{Counted, Failure, Stat, TableStat},
        server::Replies,
    },
    Parts, own_addresses, texts,
};
use crate::{
    kad::Dht,
    store::{
        StoreError,
        dump::{self, Filter, Row, Table},
    },
};
use serde_json::Value;
use std::collections::BTreeMap;

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
    Ok(Stat {
        version: env!("CARGO_PKG_VERSION").into(),
        peer: parts.node.peer_id().to_string(),
        profile: format!("{:?}", parts.config.profile).to_lowercase(),
        mode: decision.mode,
        mode_why: decision.why.to_string(),
        uptime_s: parts.clock.monotonic().saturating_sub(parts.started).as_secs(),
        listening: texts(parts.node.listeners()),
        addresses: own_addresses(parts),
        connections: parts.node.peers().await.len() as u64,
        tables: tables.collect(),
        load: parts.node.load(),
        network: parts.node.counters(),
        store: figures,
        reprovide: parts.reprovider.status(),
        jobs: parts.schedule.status().await,
    })
}

/// Streams rows from a thread that may block; it ends when the client is gone.
pub(super) async fn dump(parts: &Parts, filter: Filter, count: bool, replies: Replies) -> Result<Value, Failure> {
    let store = parts.store.clone();
    tokio::task::spawn_blocking(move || {
        let mut rows = replies.bulk();
        if count {
            let mut counter = Counter::new(&filter);
            dump::running(&store, &filter, &mut |row| counter.take(&row))?;
            let _ = counter.rows().all(|counted| rows.row(&counted));
        } else {
            dump::running(&store, &filter, &mut |row| rows.row(&row))?;
        }
        rows.flush();
        Ok(())
    })
    .await
    .map_err(Failure::other)?
    .map_err(|error| match error {
        error @ StoreError::BadFilter { .. } => Failure::data(error),
        error => Failure::other(error),
    })?;
    Ok(Value::Null)
}

/// Counts rows by table.
#[derive(Clone, Debug)]
pub struct Counter(BTreeMap<&'static str, u64>);

impl Counter {
    /// Every table that `filter` asks for, at zero.
    pub fn new(filter: &Filter) -> Self {
        let asked = |table: &Table| filter.tables.is_empty() || filter.tables.contains(table);
        Self(Table::ALL.iter().filter(|table| asked(table)).map(|table| (table.name(), 0)).collect())
    }

    /// Counts a row; always true, to go on.
    pub fn take(&mut self, row: &Row) -> bool {
        *self.0.entry(table_name(row)).or_default() += 1;
        true
    }

    /// The counts.
    pub fn rows(self) -> impl Iterator<Item = Counted> {
        self.0.into_iter().map(|(table, rows)| Counted { table: table.into(), rows })
    }
}

/// The table of a row, as NDJSON calls it.
pub fn table_name(row: &Row) -> &'static str {
    match row {
        Row::Providers { .. } => "providers",
        Row::Values { .. } => "values",
        Row::Provided { .. } => "provided",
        Row::Peers { .. } => "peers",
        Row::Routing { .. } => "routing",
        Row::Meta { .. } => "meta",
        Row::Damaged { .. } => "damaged",
    }
}
