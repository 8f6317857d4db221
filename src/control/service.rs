//! Answers requests on the control socket: decodes a request, runs an operation of [`Ops`], and encodes its answer.

use super::{
    encode::{all_cids, cid, multiaddr, peer_id, record, target, value_key},
    protocol::{self as wire, CidPart, DumpEvent, Failure, ProvideEvent, Request, Which},
    server::{Bulk, Clients, Handler, ListParts, PATIENCE, Replies, done},
};
use crate::{
    ops::{
        Ops, OpsError, QueryEvent,
        find::FindEvent,
        load::Lines,
        own::{self, list::Wanted},
        underway::Underway,
        values::ValueEvent,
    },
    store::dump::{Filter, Header, Told, Want},
};
use serde::Serialize;
use serde_json::Value;
use std::time::Duration;

/// Answers requests with the operations of a daemon. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Service {
    ops: Ops,
    /// Clients with a dump under way.
    dumping: Clients,
}

impl Service {
    /// Creates a service that answers with these operations.
    pub fn new(ops: Ops) -> Self {
        Self { ops, dumping: Clients::default() }
    }
}

impl Handler for Service {
    async fn handle(&self, request: Request, parts: &mut ListParts<'_>, replies: Replies) -> Result<Value, Failure> {
        let ops = &self.ops;
        match request {
            Request::Provide { cids, more, total, wait, verify } => {
                let wanted = Wanted { wait, verify: verify.then_some(total) };
                done(&self.provide(CidPart { cids, more }, parts, wanted, replies).await?)
            }
            Request::Unprovide { cids } => {
                done(&wire::Unprovided { removed: ops.unprovide(all_cids(&cids)?).await? as u64 })
            }
            Request::Own { cids } => rows::<wire::OwnCid, _>(ops.own(all_cids(&cids)?).await?, &replies).await,
            Request::Announce { which } => {
                let mut announcing = ops.announcing(match which {
                    Which::These { cids } => own::Which::These(all_cids(&cids)?),
                    Which::Due => own::Which::Due,
                    Which::All => own::Which::All,
                });
                while let Some(progress) = announcing.event().await {
                    replies.event(&wire::Progress::from(progress)).await?;
                }
                done(&wire::Progress::from(announcing.outcome().await))
            }
            Request::Verify { cids } => {
                let cids = all_cids(&cids)?;
                let mut verifying = Underway::start(|events| ops.verify(cids, events));
                while let Some(verified) = verifying.event().await {
                    replies.row(&wire::Verified::from(verified)).await?;
                }
                verifying.outcome().await?;
                Ok(Value::Null)
            }
            Request::FindProviders { cid: text, limit, local: true } => {
                let found = ops.local_providers(&cid(&text)?, limit).await?;
                let count = found.len();
                rows::<wire::Peer, _>(found, &replies).await?;
                done(&count)
            }
            Request::FindProviders { cid: text, limit, local: false } => {
                let cid = cid(&text)?;
                let mut finding = ops.finding_providers(&cid, limit);
                while let Some(event) = finding.event().await {
                    match event {
                        FindEvent::Step(step) => replies.event(&wire::Event::from(step)).await?,
                        FindEvent::Provider(peer) => replies.row(&wire::Peer::from(peer)).await?,
                    }
                }
                done(&finding.outcome().await.len())
            }
            Request::FindPeer { peer } => {
                let peer = peer_id(&peer)?;
                let found = answer(Underway::start(|steps| ops.find_peer(&peer, Some(steps))), &replies).await?;
                let count = usize::from(found.is_some());
                rows::<wire::Peer, _>(found, &replies).await?;
                done(&count)
            }
            Request::Closest { key, local } => {
                let target = target(&key)?;
                let query = Underway::start(|steps| ops.closest(&target, local, Some(steps)));
                let found = answer(query, &replies).await?;
                let count = found.len();
                rows::<wire::Closest, _>(found, &replies).await?;
                done(&count)
            }
            Request::GetValue { key, local: true, .. } => {
                let got = ops.local_value(&value_key(&key)?).await;
                rows::<wire::ValueRow, _>(got.value.clone(), &replies).await?;
                done(&wire::Got::from(got))
            }
            Request::GetValue { key, quorum, local: false } => {
                let key = value_key(&key)?;
                let mut getting = Underway::start(|events| ops.get_value(&key, quorum, events));
                while let Some(event) = getting.event().await {
                    match event {
                        ValueEvent::Step(step) => replies.event(&wire::Event::from(step)).await?,
                        ValueEvent::Best(value) => replies.row(&wire::ValueRow::from(value)).await?,
                    }
                }
                done(&wire::Got::from(getting.outcome().await))
            }
            Request::PutValue { key, record: text } => {
                let (key, value) = (value_key(&key)?, record(&text)?);
                let placing = Underway::start(|steps| ops.put_value(&key, &value, Some(steps)));
                done(&wire::Placed::from(answer(placing, &replies).await??))
            }
            Request::Connect { address } => done(&wire::Peer::from(ops.connect(multiaddr(&address)?).await?)),
            Request::Peers => rows::<wire::ConnectedPeer, _>(ops.peers().await, &replies).await,
            Request::Stat => done(&wire::Stat::from(ops.stat().await?)),
            Request::Diagnose { cid: text } => {
                let cid = cid(&text)?;
                let mut diagnosing = Underway::start(|events| ops.diagnose(&cid, events));
                while let Some(finding) = diagnosing.event().await {
                    replies.row(&wire::Finding::from(finding)).await?;
                }
                done(&wire::Verdict::from(diagnosing.outcome().await?))
            }
            Request::Dump { filter, count, hash, lines } => {
                let (before, after) = Bulk::ROW;
                let want = match (hash, count) {
                    (true, _) => Want::Hash,
                    (_, true) => Want::Count,
                    _ if lines => Want::NDJSON,
                    _ => Want::Lines { before, after },
                };
                self.dump(filter, want, replies).await
            }
            Request::SaveRouting => done(&ops.save_routing().await?),
            Request::Check => rows::<wire::Checked, _>(ops.check().await?, &replies).await,
            Request::Load { lines, first, provided, flush } => {
                let report = ops.load(Lines { text: lines.into_bytes(), first, provided }).await?;
                if flush {
                    ops.flush().await?;
                }
                done(&wire::Loaded::from(report))
            }
        }
    }
}

impl Service {
    /// Provides a list that begins with `part`. Holds one part at a time.
    async fn provide(
        &self,
        mut part: CidPart,
        parts: &mut ListParts<'_>,
        wanted: Wanted,
        replies: Replies,
    ) -> Result<wire::Provided, Failure> {
        let mut list = self.ops.provide_list(wanted);
        let mut so_far = wire::Provided::default();
        loop {
            let stored = wire::Provided::from(list.add(all_cids(&part.cids)?).await?);
            so_far = wire::Provided { added: so_far.added + stored.added, ..stored };
            replies.event(&ProvideEvent::Stored(so_far.clone())).await?;
            if !part.more {
                break;
            }
            part = parts.next().await?;
        }
        let mut finishing = Underway::start(|events| list.finish(events));
        while let Some(event) = finishing.event().await {
            replies.event(&ProvideEvent::from(event)).await?;
        }
        so_far.outcome = finishing.outcome().await?.map(Into::into);
        Ok(so_far)
    }

    /// Streams rows from a thread that may block. The thread ends when the client disconnects.
    async fn dump(&self, filter: Filter, want: Want, replies: Replies) -> Result<Value, Failure> {
        let turn = match self.ops.dump_turn(Duration::ZERO).await {
            // A client that does not read, such as an idle pager, gives up its turn.
            Err(OpsError::TryAgain(_)) if self.dumping.make_room() => self.ops.dump_turn(PATIENCE).await,
            turn => turn,
        }?;
        let _listed = self.dumping.list(replies.client());
        let (bulk, peer, asked) = (replies.bulk(), self.ops.peer_id(), filter.clone());
        let each = move |told: Told<'_>| match told {
            Told::Begin { schema, time } => {
                bulk.event(&DumpEvent::Header(Header::new(schema, Some(peer.to_string()), time, &asked)))
            }
            Told::Rows { json, .. } if want == Want::NDJSON => bulk.lines(json),
            Told::Rows { json, .. } => bulk.rows(json),
            Told::Damaged { place, error } => bulk.event(&DumpEvent::Damaged { place, error }),
        };
        done(&self.ops.dump(turn, filter, want, each).await?)
    }
}

/// Passes the steps of a look-up to the client. Returns its result.
async fn answer<F: Future>(mut underway: Underway<QueryEvent, F>, replies: &Replies) -> Result<F::Output, Failure> {
    while let Some(step) = underway.event().await {
        replies.event(&wire::Event::from(step)).await?;
    }
    Ok(underway.outcome().await)
}

/// Sends the answers of an operation as rows of type `R`.
async fn rows<R, T>(items: impl IntoIterator<Item = T>, replies: &Replies) -> Result<Value, Failure>
where
    R: From<T> + Serialize + Sync,
{
    for item in items {
        replies.row(&R::from(item)).await?;
    }
    Ok(Value::Null)
}
