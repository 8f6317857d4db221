//! Converts between the types of operations and those of the protocol. No other module knows both.

mod stat;

use super::protocol::{self as wire, Failure};
use crate::{
    kad::{
        Cid, PeerInfo, cids,
        peer_id::{parse_multiaddr, parse_peer_id},
        values::{
            ipns::{self, Record},
            key_text, rfc3339,
        },
    },
    node::ConnectedPeer,
    ops::{
        self, OpsError, QueryEvent,
        diagnose::Finding,
        own::list::{ListEvent, Outcome},
    },
    provide::reprovider::Progress,
    store::{check, load, provided::Own},
};
use libp2p::{Multiaddr, PeerId};
use multibase::Base;

/// Parses a CID.
pub(super) fn cid(text: &str) -> Result<Cid, Failure> {
    cids::parse(text).map_err(|error| Failure::data(format_args!("cannot read the CID {text}: {error}")))
}

/// Parses CIDs. Fails at the first malformed one.
pub(super) fn all_cids(texts: &[String]) -> Result<Vec<Cid>, Failure> {
    texts.iter().map(|text| cid(text)).collect()
}

/// Parses a peer id in any of its forms.
pub(super) fn peer_id(text: &str) -> Result<PeerId, Failure> {
    parse_peer_id(text).map_err(|error| Failure::data(format_args!("cannot read the peer id {text}: {error}")))
}

/// Parses a multiaddr.
pub(super) fn multiaddr(text: &str) -> Result<Multiaddr, Failure> {
    parse_multiaddr(text).map_err(|error| {
        Failure::data(format_args!(
            "cannot parse {text} as a multiaddr: {error}; write it like /ip4/192.0.2.7/tcp/4001"
        ))
    })
}

/// Parses a CID, a multihash or a peer id. Returns the bytes of the key whose closest servers are looked up.
pub(super) fn target(text: &str) -> Result<Vec<u8>, Failure> {
    cids::parse_key(text).map_err(|error| Failure::data(format_args!("cannot look up {text}: {error}")))
}

/// Parses the key of a value.
pub(super) fn value_key(text: &str) -> Result<Vec<u8>, Failure> {
    key_text::parse(text).map_err(|error| Failure::data(format_args!("cannot read the key {text}: {error}")))
}

/// Parses a record in any multibase.
pub(super) fn record(text: &str) -> Result<Vec<u8>, Failure> {
    let decoded = multibase::decode(text);
    decoded
        .map(|(_, record)| record)
        .map_err(|error| Failure::data(format_args!("cannot parse the record: {error}; write it in multibase")))
}

/// Formats items as text.
fn texts<T: ToString>(items: impl IntoIterator<Item = T>) -> Vec<String> {
    items.into_iter().map(|item| item.to_string()).collect()
}

impl From<OpsError> for Failure {
    fn from(error: OpsError) -> Self {
        match error {
            OpsError::BadInput(_) => Failure::data(error),
            OpsError::TryAgain(_) => Failure::busy(error),
            OpsError::Failed(_) | OpsError::Full { .. } | OpsError::Store(_) | OpsError::Stopped(_) => {
                Failure::other(error)
            }
        }
    }
}

impl From<PeerInfo> for wire::Peer {
    fn from(peer: PeerInfo) -> Self {
        Self { peer: peer.id.to_string(), addresses: texts(&peer.addrs) }
    }
}

impl From<ops::own::Provided> for wire::Provided {
    fn from(provided: ops::own::Provided) -> Self {
        Self {
            added: provided.added as u64,
            peer: provided.provider.id.to_string(),
            addresses: texts(&provided.provider.addrs),
            elsewhere: provided.elsewhere,
            servers: provided.servers as u64,
            outcome: None,
        }
    }
}

impl From<Outcome> for wire::Outcome {
    fn from(outcome: Outcome) -> Self {
        Self {
            announced: outcome.announced,
            unconfirmed: outcome.unconfirmed,
            servers: outcome.servers,
            confirmed_min: outcome.confirmed.0,
            confirmed_max: outcome.confirmed.1,
            verified: outcome
                .verified
                .map(|(asked, holding)| wire::Held { asked: asked as u64, holding: holding as u64 }),
        }
    }
}

impl From<ListEvent> for wire::ProvideEvent {
    fn from(event: ListEvent) -> Self {
        match event {
            ListEvent::Announcing(progress) => Self::Announcing(progress.into()),
            ListEvent::Verified(verified) => Self::Verified(verified.into()),
        }
    }
}

impl From<Own> for wire::OwnCid {
    fn from(own: Own) -> Self {
        Self { cid: own.cid.to_string(), announced: own.announced.map(|at| at.to_string()), confirmed: own.confirmed }
    }
}

impl From<ops::own::Verified> for wire::Verified {
    fn from(verified: ops::own::Verified) -> Self {
        Self { cid: verified.cid.to_string(), asked: verified.asked as u64, holding: verified.holding as u64 }
    }
}

impl From<ops::find::Closest> for wire::Closest {
    fn from(closest: ops::find::Closest) -> Self {
        Self {
            dht: closest.dht.name().into(),
            peer: closest.server.id.to_string(),
            cpl: closest.cpl,
            distance: closest.distance.iter().map(|byte| format!("{byte:02x}")).collect(),
            addresses: texts(&closest.server.addrs),
        }
    }
}

impl From<ops::values::Value> for wire::ValueRow {
    fn from(value: ops::values::Value) -> Self {
        let ipns = Record::decode(&value.value).ok().filter(|_| value.key.starts_with(ipns::PREFIX));
        Self {
            key: key_text::show(&value.key),
            value: ipns.as_ref().and_then(Record::path),
            sequence: ipns.as_ref().map(|record| record.sequence),
            validity: ipns.as_ref().and_then(|record| rfc3339::format(record.validity)),
            ttl_s: ipns.as_ref().and_then(|record| record.ttl).map(|ttl| ttl.as_secs_f64()),
            received: value.received.map(|at| at.to_string()),
            record: multibase::encode(Base::Base64, &value.value),
        }
    }
}

impl From<ops::values::Got> for wire::Got {
    fn from(got: ops::values::Got) -> Self {
        Self {
            found: got.value.is_some(),
            held_by: got.held_by as u64,
            answered: got.answered as u64,
            stale: got.stale as u64,
            corrected: got.corrected as u64,
            kept_sequence: got.kept_sequence,
        }
    }
}

impl From<ops::values::Placed> for wire::Placed {
    fn from(placed: ops::values::Placed) -> Self {
        Self {
            sent: placed.sent as u64,
            confirmed: placed.confirmed as u64,
            not_stored_here: placed.not_stored_here.map(|refused| refused.to_string()),
        }
    }
}

impl From<Finding> for wire::Finding {
    fn from(finding: Finding) -> Self {
        match finding {
            Finding::Server { dht, peer, cpl, answer } => {
                let (providers, error) = match answer {
                    Ok(providers) => (Some(texts(providers)), None),
                    Err(error) => (None, Some(error.to_string())),
                };
                Self::Server { dht: dht.name().into(), peer: peer.to_string(), cpl, providers, error }
            }
            Finding::Provider { provider, named_by, age, dialled } => Self::Provider {
                peer: provider.id.to_string(),
                addresses: texts(&provider.addrs),
                named_by: named_by as u64,
                age_s: age.map(|age| age.as_secs()),
                dialable: dialled.is_ok(),
                dial_ms: dialled.as_ref().ok().and_then(|took| u64::try_from((*took)?.as_millis()).ok()),
                error: dialled.err().map(|error| error.to_string()),
            },
        }
    }
}

impl From<ops::diagnose::Verdict> for wire::Verdict {
    fn from(verdict: ops::diagnose::Verdict) -> Self {
        Self { ok: verdict.ok, verdict: verdict.verdict, next: verdict.next }
    }
}

impl From<Progress> for wire::Progress {
    fn from(progress: Progress) -> Self {
        Self {
            announced: progress.announced,
            failed: progress.failed,
            total: progress.total,
            servers: progress.servers,
            lookups: progress.lookups,
            offline: progress.offline,
        }
    }
}

impl From<ConnectedPeer> for wire::ConnectedPeer {
    fn from(peer: ConnectedPeer) -> Self {
        Self {
            peer: peer.peer,
            address: peer.address,
            inbound: peer.inbound,
            agent: peer.agent,
            protocols: peer.protocols,
            connected_s: peer.connected_s,
            ping_ms: peer.ping_ms,
            wan: peer.wan,
            lan: peer.lan,
        }
    }
}

impl From<check::Finding> for wire::Checked {
    fn from(finding: check::Finding) -> Self {
        let level = match finding.level {
            check::Level::Ok => wire::Level::Ok,
            check::Level::Note => wire::Level::Note,
            check::Level::Unread => wire::Level::Unread,
            check::Level::Damaged => wire::Level::Damaged,
        };
        Self { level, place: finding.place, found: finding.found, next: finding.next }
    }
}

impl From<load::Report> for wire::Loaded {
    fn from(report: load::Report) -> Self {
        Self { tables: report.tables, bad: report.bad, bad_lines: report.bad_lines }
    }
}

impl From<wire::Loaded> for load::Report {
    fn from(loaded: wire::Loaded) -> Self {
        Self { tables: loaded.tables, bad: loaded.bad, bad_lines: loaded.bad_lines }
    }
}

impl From<QueryEvent> for wire::Event {
    fn from(event: QueryEvent) -> Self {
        match event {
            QueryEvent::Asking { dht, peer } => Self::Asking { dht, peer },
            QueryEvent::Answered { dht, peer, closer, providers, took_ms } => {
                Self::Answered { dht, peer, closer, providers, took_ms }
            }
            QueryEvent::Failed { dht, peer, error } => Self::Failed { dht, peer, error },
            QueryEvent::Provider { dht, provider, addresses, from } => {
                Self::Provider { dht, provider, addresses, from }
            }
            QueryEvent::Value { dht, peer, held } => Self::Value { dht, peer, held },
            QueryEvent::Put { dht, peer, error } => Self::Put { dht, peer, error },
        }
    }
}
