//! `dhtstore provided`

use super::{
    Context,
    ask::Server,
    dump,
    error::Result,
    output::{FormatArg, Rows},
};
use crate::store::dump::{Filter, Table};

/// Arguments of `dhtstore provided`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Also works on a stopped node, from a copy of its database.")]
pub struct Args {
    /// Print only this CID
    cid: Option<String>,
    /// Stop after N CIDs
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    #[command(flatten)]
    format: FormatArg,
}

/// Runs the command.
pub async fn execute(args: Args, context: &Context) -> Result<()> {
    let cid = args.cid.as_deref().map(dump::check_cid).transpose()?;
    let filter = Filter { tables: vec![Table::Provided], cid, limit: args.limit, ..Filter::default() };
    let format = args.format.resolve(context);
    let mut rows = Rows::stdout(format, dump::schema("provided", format)).bulk();
    let server = Server::connect_if_running(context).await?;
    let damaged = dump::rows(context, server, filter, |row| rows.push(&row)).await?;
    rows.finish()?;
    damaged.outcome()
}
