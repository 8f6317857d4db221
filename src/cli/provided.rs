//! `dhtstore provided`

use super::{
    Context,
    ask::Server,
    dump,
    error::Result,
    output::{FormatArg, Rows},
};
use crate::{
    control::protocol::Request,
    store::dump::{Filter, Row, Table},
};

/// Arguments of `dhtstore provided`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Works on a stopped node too: then it reads a copy of the database.")]
pub struct Args {
    /// Only this CID
    cid: Option<String>,
    /// Stop after so many
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
    let mut damaged = dump::Damaged::default();
    let mut each = |row: Row| match &row {
        Row::Damaged { place, error } => {
            damaged.report(place, error, context);
            Ok(())
        }
        row => rows.push(row),
    };
    match Server::connect_if_running(context).await? {
        Some(mut server) => {
            context.notice("from the running server");
            server.rows(&Request::Dump { filter, count: false }, each).await?;
        }
        None => dump::stopped(context, filter, false, &mut each).await?,
    }
    rows.finish()?;
    damaged.outcome()
}
