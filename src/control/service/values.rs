//! Values: getting the best of the network, putting one.

use super::{
    super::{
        protocol::{Failure, Got, Placed, ValueRow},
        server::{Replies, done},
    },
    Parts, Query,
};
use crate::{
    kad::values::{
        self,
        ipns::{self, Record},
        key_text, rfc3339,
    },
    node::lookup::values::QUORUM,
    store::{StoreError, values::Refused},
};
use multibase::Base;
use serde_json::Value;
use std::time::Duration;

/// The best value of a key: the row, then what became of correcting those that hold a worse one.
pub(super) async fn get(parts: &Parts, key: &str, quorum: Option<usize>, replies: Replies) -> Result<Value, Failure> {
    let key = parse(key)?;
    let quorum = quorum.unwrap_or(QUORUM);
    let query = Query::start(|events| parts.node.find_value(&key, quorum, Some(events)));
    let Some(found) = query.finish(&replies).await? else {
        return done(&Got { kept_sequence: kept(parts, &key, None).await, ..Got::default() });
    };
    let kept_sequence = kept(parts, &key, Some(&found.value)).await;
    replies.row(&row(&key, &found.value, None)).await?;
    let stale = found.stale.len();
    let query = Query::start(|events| parts.node.put_values(&key, &found.value, found.stale, Some(events)));
    let corrected = if stale == 0 { 0 } else { query.finish(&replies).await?.confirmed };
    done(&Got {
        found: true,
        held_by: found.held_by as u64,
        answered: found.answered as u64,
        stale: stale as u64,
        corrected: corrected as u64,
        kept_sequence,
    })
}

/// What this node itself holds.
pub(super) async fn local(parts: &Parts, key: &str, replies: Replies) -> Result<Value, Failure> {
    let key = parse(key)?;
    let held = parts.store.values.get(&key);
    let kept_sequence = kept(parts, &key, held.as_ref().map(|held| &*held.value)).await;
    let Some(held) = held else { return done(&Got { kept_sequence, ..Got::default() }) };
    replies.row(&row(&key, &held.value, Some(held.received.to_string()))).await?;
    done(&Got { found: true, kept_sequence, ..Got::default() })
}

/// Of this node's own name the highest sequence number ever, that of `value` among them: what was seen is remembered.
async fn kept(parts: &Parts, key: &[u8], value: Option<&[u8]>) -> Option<u64> {
    let own = parts.node.peer_id();
    if key != ipns::key(&own) {
        return None;
    }
    if let Some(record) = value.and_then(|value| Record::decode(value).ok()) {
        // A disk that takes no writes: what is known in memory and on the network still counts.
        if let Err(error) = remember(parts, record.sequence).await {
            tracing::warn!(%error, "cannot keep the sequence number of this node's own name");
        }
    }
    parts.store.sequences().get(&own).copied()
}

async fn remember(parts: &Parts, sequence: u64) -> Result<(), StoreError> {
    let (store, own) = (parts.store.clone(), parts.node.peer_id());
    tokio::task::spawn_blocking(move || store.raise_sequence(&own, sequence))
        .await
        .unwrap_or_else(|error| Err(StoreError::Database(error.to_string())))
}

pub(super) async fn put(parts: &Parts, key: &str, record: &str, replies: Replies) -> Result<Value, Failure> {
    let key = parse(key)?;
    let (_, value) = multibase::decode(record).map_err(|error| Failure::data(format_args!("record: {error}")))?;
    if key == ipns::key(&parts.node.peer_id()) {
        let now = Duration::from_secs(u64::from(parts.clock.wall().0));
        values::validate(&key, &value, now).map_err(Failure::data)?;
        // Before anybody else has it.
        if let Ok(record) = Record::decode(&value) {
            remember(parts, record.sequence).await.map_err(Failure::other)?;
        }
    }
    let query = Query::start(|events| parts.node.place_value(&key, &value, Some(events)));
    let (own, placed) = query.finish(&replies).await?.map_err(|refused| match refused {
        Refused::Worse => Failure::other(
            "this node holds a better value of this key: a higher sequence number, or the same and valid for longer; see \
             `dhtstore get --local`",
        ),
        refused => Failure::data(refused),
    })?;
    done(&Placed {
        sent: placed.sent as u64,
        confirmed: placed.confirmed as u64,
        not_stored_here: own.err().map(|refused| refused.to_string()),
    })
}

fn parse(key: &str) -> Result<Vec<u8>, Failure> {
    key_text::parse(key).map_err(|error| Failure::data(format_args!("{key}: {error}")))
}

fn row(key: &[u8], value: &[u8], received: Option<String>) -> ValueRow {
    let ipns = Record::decode(value).ok().filter(|_| key.starts_with(ipns::PREFIX));
    ValueRow {
        key: key_text::show(key),
        value: ipns.as_ref().and_then(Record::path),
        sequence: ipns.as_ref().map(|record| record.sequence),
        validity: ipns.as_ref().and_then(|record| rfc3339::format(record.validity)),
        ttl_s: ipns.as_ref().and_then(|record| record.ttl).map(|ttl| ttl.as_secs_f64()),
        received,
        record: multibase::encode(Base::Base64, value),
    }
}
