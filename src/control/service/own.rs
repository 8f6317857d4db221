//! Own CIDs: provide, unprovide, announce.

use super::{
    super::{
        protocol::{Failure, OwnCid, Provided, Unprovided, Verified, Which},
        server::Replies,
    },
    Parts, parse_all, provider_addresses,
};
use crate::{
    kad::{Dht, keyspace::Key},
    ops::verify,
    provide::reprovider::Progress,
    store::StoreError,
};
use serde_json::Value;
use tokio::sync::mpsc;

/// Own CIDs that `verify` asks about when none are named.
const SAMPLE: usize = 10;
/// Own CIDs that `verify` asks about at most: each takes a look-up and up to 40 requests.
const VERIFY_MAX: usize = 100;
/// Progress that waits for the client; when there is more, only the newest matters.
const PROGRESS: usize = 4;

fn store_failure(error: StoreError) -> Failure {
    match error {
        StoreError::Full { what, limit } => Failure::other(format_args!(
            "limit of {limit} {what} reached; raise reprovide.max_cids or `dhtstore unprovide` some"
        )),
        other => Failure::other(other),
    }
}

pub(super) async fn provide(parts: &Parts, cids: Vec<String>) -> Result<Provided, Failure> {
    let cids = parse_all(&cids)?;
    let added = parts.store.provided.add(cids).await.map_err(store_failure)?;
    parts.reprovider.wake();
    Ok(Provided {
        added: added as u64,
        peer: parts.node.peer_id().to_string(),
        addresses: provider_addresses(parts),
        elsewhere: !parts.config.provide.addresses.is_empty(),
        servers: Dht::ALL.into_iter().map(|dht| parts.node.table(dht).len() as u64).sum(),
    })
}

pub(super) async fn unprovide(parts: &Parts, cids: Vec<String>) -> Result<Unprovided, Failure> {
    let multihashes = parse_all(&cids)?.into_iter().map(|cid| cid.hash().to_bytes()).collect();
    let removed = parts.store.provided.remove(multihashes).await.map_err(store_failure)?;
    Ok(Unprovided { removed: removed as u64 })
}

pub(super) async fn rows(parts: &Parts, cids: Vec<String>, replies: Replies) -> Result<Value, Failure> {
    let wanted = parse_all(&cids)?;
    let provided = parts.store.provided.clone();
    let rows = tokio::task::spawn_blocking(move || {
        let row = |cid: &crate::kad::Cid| {
            let own = provided.get(&cid.hash().to_bytes())?;
            let announced = own.announced.map(|at| at.to_string());
            Some(OwnCid { cid: cid.to_string(), announced, confirmed: own.confirmed })
        };
        wanted.iter().filter_map(row).collect::<Vec<_>>()
    });
    for row in rows.await.map_err(Failure::other)? {
        replies.row(&row).await?;
    }
    Ok(Value::Null)
}

pub(super) async fn announce(parts: &Parts, which: Which, replies: Replies) -> Result<Progress, Failure> {
    let (events, mut progress) = mpsc::channel(PROGRESS);
    let announcing = async {
        match which {
            Which::These { cids } => {
                let multihashes = parse_all(&cids)?.into_iter().map(|cid| cid.hash().to_bytes()).collect();
                Ok(parts.reprovider.announce(multihashes, events).await)
            }
            Which::Due => Ok(parts.reprovider.announce_due(events).await),
            Which::All => Ok(parts.reprovider.announce_all(events).await),
        }
    };
    let mut announcing = std::pin::pin!(announcing);
    loop {
        tokio::select! {
            biased;
            Some(step) = progress.recv() => replies.event(&step).await?,
            result = &mut announcing => return result,
        }
    }
}

pub(super) async fn verify(parts: &Parts, cids: Vec<String>, replies: Replies) -> Result<Value, Failure> {
    let mut wanted = parse_all(&cids)?;
    if wanted.is_empty() {
        let provided = parts.store.provided.clone();
        wanted = tokio::task::spawn_blocking(move || sample(&provided)).await.map_err(Failure::other)?;
    }
    for cid in wanted.into_iter().take(VERIFY_MAX) {
        let held = verify::held(&parts.node, &cid.hash().to_bytes()).await;
        let row = Verified { cid: cid.to_string(), asked: held.asked as u64, holding: held.holding as u64 };
        replies.row(&row).await?;
    }
    Ok(Value::Null)
}

/// Announced CIDs, evenly over the keyspace.
fn sample(provided: &crate::store::provided::Provided) -> Vec<crate::kad::Cid> {
    let mut sample: Vec<crate::kad::Cid> = Vec::new();
    for part in 0..SAMPLE {
        let mut from = [0; 32];
        from[0] = u8::try_from(part * 256 / SAMPLE).unwrap_or(u8::MAX);
        for (_, own) in provided.range(&Key::from_bytes(from), 1) {
            if own.announced.is_some() && !sample.contains(&own.cid) {
                sample.push(own.cid);
            }
        }
    }
    sample
}
