//! `dhtstore diagnose`

use super::{
    Context,
    ask::{Item, Server},
    error::{CliError, Result},
    output::{self, Format, FormatArg, Rows, Schema},
};
use crate::{
    control::protocol::{Finding, Request, Verdict},
    kad::cids,
};
use serde::Serialize;
use std::time::Duration;

const SERVERS: Schema = Schema { columns: &["dht", "server", "cpl", "record"], id: "server" };
const PROVIDERS: Schema = Schema { columns: &["provider", "named_by", "age", "dialable", "addresses"], id: "provider" };

/// Arguments of `dhtstore diagnose`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Asks the closest servers of both DHTs for records of the CID, then dials each provider that they name. The column age \
has a value only for records that this node holds itself: servers do not send the age of a record.
Exit 0: found, and a provider can be dialled. 1: otherwise; the last line says why.

Examples:
  dhtstore diagnose bafy…")]
pub struct Args {
    /// CID, v0 or v1 in any base
    cid: String,
    #[command(flatten)]
    format: FormatArg,
}

/// A row of the tables.
#[derive(Serialize)]
#[serde(untagged)]
enum Shown {
    Server { dht: String, server: String, cpl: u16, record: String },
    Provider { provider: String, named_by: u64, age: Option<String>, dialable: String, addresses: Vec<String> },
}

/// The last line of the NDJSON output.
#[derive(Serialize)]
struct Last<'v> {
    kind: &'static str,
    #[serde(flatten)]
    verdict: &'v Verdict,
}

/// Runs the command.
pub async fn execute(args: Args, context: &Context) -> Result<()> {
    let cid = cids::parse(&args.cid)
        .map_err(|error| CliError::data(format_args!("cannot diagnose {}: {error}", args.cid)))?;
    let format = args.format.resolve(context);
    let mut rows = Rows::stdout(format, SERVERS);
    let waiting = output::progress(context, None, "asking the closest servers");
    waiting.enable_steady_tick(Duration::from_millis(100));
    let each = |item: Item<'_>| {
        waiting.finish_and_clear();
        let Item::Row(row) = item else { return Ok(()) };
        let finding: Finding = row.parse()?;
        if format == Format::Ndjson {
            return rows.push(&finding);
        }
        let row = shown(finding);
        rows.switch(if matches!(row, Shown::Server { .. }) { SERVERS } else { PROVIDERS })?;
        rows.push(&row)
    };
    let request = Request::Diagnose { cid: cid.to_string() };
    let verdict: Verdict = Server::connect(context).await?.ask(&request, each).await?;
    waiting.finish_and_clear();
    rows.finish()?;
    match format {
        Format::Ndjson => output::print_object(&Last { kind: "verdict", verdict: &verdict }, format)?,
        Format::Table => output::print(format_args!("\n{}\n", line(&verdict)))?,
        Format::Csv | Format::Ids => context.notice(line(&verdict)),
    }
    if verdict.ok {
        return Ok(());
    }
    let next = verdict.next.unwrap_or(verdict.verdict);
    Err(CliError::other(format_args!("no provider can be dialled; {next}")))
}

fn line(verdict: &Verdict) -> String {
    format!("Verdict: {}", verdict.verdict)
}

fn shown(finding: Finding) -> Shown {
    match finding {
        Finding::Server { dht, peer, cpl, providers, error } => {
            let record = match (providers, error) {
                (Some(providers), _) if providers.is_empty() => "none".into(),
                (Some(providers), _) if providers.len() == 1 => "1 provider".into(),
                (Some(providers), _) => format!("{} providers", providers.len()),
                (None, error) => format!("no answer: {}", error.unwrap_or_default()),
            };
            Shown::Server { dht, server: peer, cpl, record }
        }
        Finding::Provider { peer, addresses, named_by, age_s, dialable, dial_ms, error } => Shown::Provider {
            provider: peer,
            named_by,
            age: age_s.map(|age| output::human_duration(Duration::from_secs(age))),
            dialable: match (dialable, dial_ms, error) {
                (true, Some(ms), _) => format!("yes, {ms} ms"),
                (true, None, _) => "this node".into(),
                (false, _, error) => format!("no: {}", error.unwrap_or_default()),
            },
            addresses,
        },
    }
}
