//! Converts the figures of `stat`.

use super::{super::protocol as wire, texts};
use crate::{node, ops, provide::reprovider, schedule::JobStatus, store};

impl From<ops::inspect::Table> for wire::TableStat {
    fn from(table: ops::inspect::Table) -> Self {
        Self {
            dht: table.dht.name().into(),
            peers: table.peers() as u64,
            buckets: table.buckets.into_iter().map(|(cpl, entries)| (cpl, entries as u64)).collect(),
        }
    }
}

impl From<ops::inspect::Stat> for wire::Stat {
    fn from(stat: ops::inspect::Stat) -> Self {
        Self {
            version: stat.version.into(),
            peer: stat.peer.to_string(),
            profile: stat.profile.name().into(),
            mode: stat.mode.mode.name().into(),
            mode_why: stat.mode.why.to_string(),
            connections_max: stat.connections_max.into(),
            ipns_sequences: stat.ipns_sequences.into_iter().map(|(peer, n)| (peer.to_string(), n)).collect(),
            bootstrap: stat.bootstrap.into_iter().map(Into::into).collect(),
            uptime_s: stat.uptime.as_secs(),
            listening: texts(stat.listening),
            addresses: texts(stat.addresses),
            connections: stat.connections as u64,
            tables: stat.tables.into_iter().map(Into::into).collect(),
            load: stat.load.into(),
            network: stat.network,
            store: stat.store.into(),
            reprovide: stat.reprovide.into(),
            jobs: stat.jobs.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<node::BootstrapPeer> for wire::BootstrapPeer {
    fn from(peer: node::BootstrapPeer) -> Self {
        Self { addresses: peer.addresses, answers: peer.answers, error: peer.error }
    }
}

impl From<node::Load> for wire::Load {
    fn from(load: node::Load) -> Self {
        Self {
            inbound_streams: load.inbound_streams,
            pending_handshakes: load.pending_handshakes,
            read_bytes: load.read_bytes,
        }
    }
}

impl From<store::Stat> for wire::StoreStat {
    fn from(stat: store::Stat) -> Self {
        Self {
            schema: stat.schema,
            records: stat.records,
            keys: stat.keys,
            peers: stat.peers,
            provided: stat.provided,
            values: stat.values,
            values_bytes: stat.values_bytes,
            log_chunks: stat.log_chunks,
            oldest: stat.oldest,
            newest: stat.newest,
            records_bytes_on_disk: stat.records_bytes_on_disk,
            node_bytes_on_disk: stat.node_bytes_on_disk,
            bytes_on_disk: stat.bytes_on_disk,
            disk_free: stat.disk_free,
            exports_bytes_on_disk: stat.exports_bytes_on_disk,
            replayed: stat.replayed,
            gc_paused: stat.gc_paused,
            notes: stat.notes,
            counters: stat.counters,
            log_entries: stat.log_entries,
            oldest_age_s: stat.oldest_age_s,
            log_entries_per_s: stat.log_entries_per_s,
            per_record: stat.per_record.into(),
            limits: stat.limits.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<store::footprint::Footprint> for wire::RecordSize {
    fn from(size: store::footprint::Footprint) -> Self {
        Self {
            disk_bytes: size.disk_bytes,
            index_bytes: size.index_bytes,
            memory_bytes: size.memory_bytes,
            log_copies: size.log_copies,
        }
    }
}

impl From<store::limits::Limit> for wire::Limit {
    fn from(limit: store::limits::Limit) -> Self {
        Self { limit: limit.limit, unit: limit.unit, max: limit.max, now: limit.now }
    }
}

impl From<reprovider::Status> for wire::ReprovideStat {
    fn from(status: reprovider::Status) -> Self {
        Self {
            due: status.due,
            announced: status.announced,
            last_region: status.last_region,
            last_sweep: status.last_sweep,
            behind_since: status.behind_since,
            offline: status.offline,
            sweeping: status.sweeping,
        }
    }
}

impl From<JobStatus> for wire::JobStat {
    fn from(status: JobStatus) -> Self {
        let last = status.last.as_ref();
        Self {
            job: status.job.into(),
            cron: status.cron,
            interval_s: status.interval.as_secs(),
            running: status.running,
            last: last.map(|run| run.started.to_string()),
            took_ms: last.map(|run| run.took_ms),
            outcome: last.map(|run| run.outcome.clone()),
            ok: last.map(|run| run.ok),
            next: status.next.map(|at| at.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::to_value;

    /// Scripts read `dhtstore stat --format json`, so a figure has the same name in every type that it goes through.
    #[test]
    fn figures_go_over_the_socket_by_the_names_that_they_have_where_they_are_taken() {
        let limits = vec![store::limits::Limit { limit: "memory".into(), unit: "bytes".into(), max: 2, now: 1 }];
        let stat = store::Stat { limits, log_entries: Some(7), ..store::Stat::default() };
        assert_eq!(to_value(&stat).unwrap(), to_value(wire::StoreStat::from(stat)).unwrap());
        let status = reprovider::Status { last_region: Some("01".into()), ..Default::default() };
        assert_eq!(to_value(&status).unwrap(), to_value(wire::ReprovideStat::from(status)).unwrap());
        let load = node::Load { read_bytes: 3, ..Default::default() };
        assert_eq!(to_value(load).unwrap(), to_value(wire::Load::from(load)).unwrap());
    }
}
