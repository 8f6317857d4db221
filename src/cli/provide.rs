//! `dhtstore provide`

use super::{
    Context,
    ask::{Item, Server},
    cid_list::{CidArgs, CidList},
    error::{CliError, Result},
    output::{self, FormatArg},
};
use crate::{
    control::protocol::{OwnCid, Provided, Request, Verified, Which},
    provide::reprovider::Progress,
};
use serde::Serialize;

/// Up to so many CIDs are announced by themselves; more, along with all that is due.
const ALONE_MAX: u64 = 4096;

/// Arguments of `dhtstore provide`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Returns once the CIDs are on disk. The server then announces them, and again every reprovide.interval.
With --wait: exit 1 if a CID was confirmed by no server (it stays in the list and is tried again).

Examples:
  dhtstore provide bafy…
  dhtstore provide --wait --file cids.txt
  ipfs pin ls --type recursive -q | dhtstore provide -")]
pub struct Args {
    #[command(flatten)]
    cids: CidArgs,
    /// Return once announced, and say how many servers confirmed it
    #[arg(long)]
    wait: bool,
    /// After announcing, ask the closest servers back whether they hold the records (some of them, if there are many)
    #[arg(long, requires = "wait")]
    verify: bool,
    #[command(flatten)]
    format: FormatArg,
}

/// What was done, for stdout.
#[derive(Debug, Default, Serialize)]
struct Report {
    cids: u64,
    added: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    announced: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unconfirmed: Option<u64>,
    /// Distinct servers that confirmed something.
    #[serde(skip_serializing_if = "Option::is_none")]
    servers: Option<u64>,
    /// Fewest and most servers that confirmed a single CID.
    #[serde(skip_serializing_if = "Option::is_none")]
    confirmed_min: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    confirmed_max: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verified_asked: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verified_holding: Option<u64>,
}

/// Runs the command.
pub async fn execute(args: Args, context: &Context) -> Result<()> {
    let mut list = args.cids.read_for_server(context).await?;
    let mut report = Report { cids: list.len(), ..Report::default() };
    if list.is_empty() {
        context.notice("no CIDs in the input");
        return output::print_object(&report, args.format.resolve(context));
    }
    let provided = add(&mut list, context, &mut report).await?;
    tell_once(&provided, context);
    if args.wait {
        announce(&mut list, context, &mut report).await?;
    }
    if args.verify {
        verify(&mut list, context, &mut report).await?;
    }
    output::print_object(&report, args.format.resolve(context))?;
    match report.unconfirmed {
        Some(unconfirmed) if unconfirmed > 0 && provided.servers == 0 => Err(CliError::other(
            "no server is known, so nothing was announced; the CIDs are kept and will be announced when there is one: \
             `dhtstore connect MULTIADDR`, or set bootstrap",
        )),
        Some(unconfirmed) if unconfirmed > 0 => Err(CliError::other(format_args!(
            "{unconfirmed} CIDs were confirmed by no server; they are kept and will be tried again, see `dhtstore stat`"
        ))),
        _ => Ok(()),
    }
}

async fn add(list: &mut CidList, context: &Context, report: &mut Report) -> Result<Provided> {
    let bar = output::progress(context, Some(list.len()), "storing");
    let mut last = Provided::default();
    for cids in list.chunks()? {
        let cids = cids?;
        let count = cids.len() as u64;
        // A connection for each: reading on may take longer than the server waits.
        last = Server::connect(context).await?.ask(&Request::Provide { cids }, |_| Ok(())).await?;
        report.added += last.added;
        bar.inc(count);
    }
    bar.finish_and_clear();
    Ok(last)
}

/// What users of `ipfs` would not expect.
fn tell_once(provided: &Provided, context: &Context) {
    if provided.elsewhere {
        context.notice(format_args!(
            "records name peer {} at {} (provide.addresses)",
            provided.peer,
            provided.addresses.join(", ")
        ));
    } else {
        context.notice(format_args!(
            "records name this node, {}; dhtstore serves no blocks: set provide.addresses to where the content is served",
            provided.peer
        ));
    }
}

async fn announce(list: &mut CidList, context: &Context, report: &mut Report) -> Result<()> {
    let which = if list.len() <= ALONE_MAX {
        let mut cids = Vec::new();
        for chunk in list.chunks()? {
            cids.extend(chunk?);
        }
        Which::These { cids }
    } else {
        Which::Due
    };
    let progress = watch(which, context).await?;
    report.servers = Some(progress.servers);
    let (mut announced, mut seen) = (0, 0);
    let mut spread = (u16::MAX, 0);
    for cids in list.chunks()? {
        let request = Request::Own { cids: cids? };
        let count = |own: OwnCid| {
            seen += 1;
            announced += u64::from(own.announced.is_some());
            spread = (spread.0.min(own.confirmed), spread.1.max(own.confirmed));
            Ok(())
        };
        Server::connect(context).await?.rows(&request, count).await?;
    }
    report.announced = Some(announced);
    report.unconfirmed = Some(report.cids.saturating_sub(announced).min(seen.max(progress.failed)));
    if progress.offline && announced < report.cids {
        report.unconfirmed = Some(report.cids - announced);
    }
    (report.confirmed_min, report.confirmed_max) = (Some(spread.0.min(spread.1)), Some(spread.1));
    Ok(())
}

/// Announces with a progress bar; also for `reprovide`.
pub(super) async fn watch(which: Which, context: &Context) -> Result<Progress> {
    let bar = output::progress(context, Some(0), "announcing");
    let each = |item: Item<'_>| {
        if let Item::Event(event) = item {
            let step: Progress = event.parse()?;
            bar.set_length(step.total);
            bar.set_position(step.announced + step.failed);
        }
        Ok(())
    };
    let progress = Server::connect(context).await?.ask(&Request::Announce { which }, each).await;
    bar.finish_and_clear();
    progress
}

async fn verify(list: &mut CidList, context: &Context, report: &mut Report) -> Result<()> {
    /// CIDs asked about; each takes a look-up and a request to each of the servers.
    const SAMPLE: usize = 10;
    let step = (usize::try_from(list.len()).unwrap_or(usize::MAX) / SAMPLE).max(1);
    let mut cids = Vec::new();
    let mut index = 0usize;
    for chunk in list.chunks()? {
        for cid in chunk? {
            if index.is_multiple_of(step) && cids.len() < SAMPLE {
                cids.push(cid);
            }
            index += 1;
        }
    }
    let (asked, holding) = ask_back(cids, context).await?;
    (report.verified_asked, report.verified_holding) = (Some(asked), Some(holding));
    Ok(())
}

/// Asks the closest servers of these CIDs (none: some own ones) whether they hold our records: asked, holding.
pub(super) async fn ask_back(cids: Vec<String>, context: &Context) -> Result<(u64, u64)> {
    let (mut asked, mut holding) = (0, 0);
    let each = |row: Verified| {
        context.notice(format_args!("{}: held by {} of {} servers", row.cid, row.holding, row.asked));
        (asked, holding) = (asked + row.asked, holding + row.holding);
        Ok(())
    };
    Server::connect(context).await?.rows(&Request::Verify { cids }, each).await?;
    Ok((asked, holding))
}
