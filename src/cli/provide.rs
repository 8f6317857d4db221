//! `dhtstore provide`

use super::{
    Context,
    ask::{Item, Server},
    cid_list::{CidArgs, CidList},
    error::{CliError, Result},
    output::{self, FormatArg},
};
use crate::{
    control::client::Json,
    control::protocol::{CidPart, Progress, ProvideEvent, Provided, Request, Verified, Which},
};
use indicatif::ProgressBar;
use serde::Serialize;

/// Arguments of `dhtstore provide`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Returns once the CIDs are on disk. The server then announces them, and again every reprovide.interval.
With --wait: exit 1 if no server confirmed a CID. The CID stays in the list, and the server tries it again.

Examples:
  dhtstore provide bafy…
  dhtstore provide --wait --file cids.txt
  ipfs pin ls --type recursive -q | dhtstore provide -")]
pub struct Args {
    #[command(flatten)]
    cids: CidArgs,
    /// Wait until the CIDs are announced, and print how many servers confirmed them
    #[arg(long)]
    wait: bool,
    /// Then ask the closest servers whether they hold the records (of a sample, if there are many CIDs)
    #[arg(long, requires = "wait")]
    verify: bool,
    #[command(flatten)]
    format: FormatArg,
}

/// Result, for stdout.
#[derive(Debug, Default, Serialize)]
struct Report {
    cids: u64,
    added: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    announced: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unconfirmed: Option<u64>,
    /// Distinct servers that confirmed at least one CID.
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
        context.notice("the input has no CIDs");
        return output::print_object(&report, args.format.resolve(context));
    }
    let provided = provide(&mut list, &args, context).await?;
    report.added = provided.added;
    if let Some(outcome) = &provided.outcome {
        (report.announced, report.unconfirmed) = (Some(outcome.announced), Some(outcome.unconfirmed));
        report.servers = Some(outcome.servers);
        (report.confirmed_min, report.confirmed_max) = (Some(outcome.confirmed_min), Some(outcome.confirmed_max));
        report.verified_asked = outcome.verified.map(|held| held.asked);
        report.verified_holding = outcome.verified.map(|held| held.holding);
    }
    output::print_object(&report, args.format.resolve(context))?;
    match report.unconfirmed {
        Some(unconfirmed) if unconfirmed > 0 && provided.servers == 0 => Err(CliError::other(
            "cannot announce: no server is known; the CIDs are kept and will be announced later; join a network with \
             `dhtstore connect MULTIADDR`, or set `bootstrap`",
        )),
        Some(unconfirmed) if unconfirmed > 0 => Err(CliError::other(format_args!(
            "cannot announce {unconfirmed} CIDs: no server confirmed them; they are kept and tried again, see \
             `dhtstore stat`"
        ))),
        _ => Ok(()),
    }
}

/// Sends the list in parts, as one request. Returns the report on the whole list.
async fn provide(list: &mut CidList, args: &Args, context: &Context) -> Result<Provided> {
    let total = list.len();
    let mut chunks = list.chunks()?.peekable();
    let mut next = move || -> Result<CidPart> {
        let cids = chunks.next().transpose()?.unwrap_or_default();
        Ok(CidPart { cids, more: chunks.peek().is_some() })
    };
    let CidPart { cids, mut more } = next()?;
    let mut sent = cids.len() as u64;
    let request = Request::Provide { cids, more, total, wait: args.wait, verify: args.verify };
    let storing = output::progress(context, Some(total), "storing");
    let mut announcing: Option<ProgressBar> = None;
    let each = |event: Json<'_>| {
        match event.parse()? {
            ProvideEvent::Stored(_) if more => {
                storing.set_position(sent);
                let part = next()?;
                more = part.more;
                sent += part.cids.len() as u64;
                return Ok(Some(part));
            }
            ProvideEvent::Stored(provided) => {
                storing.finish_and_clear();
                tell_once(&provided, context);
                announcing = args.wait.then(|| output::progress(context, Some(0), "announcing"));
            }
            ProvideEvent::Announcing(step) => announcing.iter().for_each(|bar| advance(bar, &step)),
            ProvideEvent::Verified(row) => {
                announcing.iter().for_each(ProgressBar::finish_and_clear);
                tell_held(&row, context);
            }
        }
        Ok(None)
    };
    let provided = Server::connect(context).await?.ask_in_parts(&request, each).await;
    storing.finish_and_clear();
    announcing.iter().for_each(ProgressBar::finish_and_clear);
    provided
}

/// Reports which peer the records name, which users of `ipfs` may not expect.
fn tell_once(provided: &Provided, context: &Context) {
    if provided.elsewhere {
        context.notice(format_args!(
            "records name peer {} at {} (provide.addresses)",
            provided.peer,
            provided.addresses.join(", ")
        ));
    } else {
        context.notice(format_args!(
            "records name this node, {}, which serves no blocks; set provide.addresses to where the content is served",
            provided.peer
        ));
    }
}

/// Announces CIDs with a progress bar, for `reprovide`.
pub(super) async fn watch(which: Which, context: &Context) -> Result<Progress> {
    let bar = output::progress(context, Some(0), "announcing");
    let each = |item: Item<'_>| {
        if let Item::Event(event) = item {
            advance(&bar, &event.parse()?);
        }
        Ok(())
    };
    let progress = Server::connect(context).await?.ask(&Request::Announce { which }, each).await;
    bar.finish_and_clear();
    progress
}

fn advance(bar: &ProgressBar, step: &Progress) {
    bar.set_length(step.total);
    bar.set_position(step.announced + step.failed);
}

fn tell_held(row: &Verified, context: &Context) {
    context.notice(format_args!("{}: {} of {} servers hold the record", row.cid, row.holding, row.asked));
}

/// Asks the closest servers of some own CIDs whether they hold our records, for `reprovide`. Returns how many were
/// asked and how many hold them.
pub(super) async fn ask_back(context: &Context) -> Result<(u64, u64)> {
    let (mut asked, mut holding) = (0, 0);
    let each = |row: Verified| {
        tell_held(&row, context);
        (asked, holding) = (asked + row.asked, holding + row.holding);
        Ok(())
    };
    Server::connect(context).await?.rows(&Request::Verify { cids: Vec::new() }, each).await?;
    Ok((asked, holding))
}
