//! `dhtstore compact`

use super::{
    Context,
    ask::Server,
    dump,
    error::{CliError, Result},
    output::{FormatArg, Rows, Schema},
};
use crate::{clock::SystemClock, store::compact};
use serde::Serialize;

/// Arguments of `dhtstore compact`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Writes a new copy of both databases of a stopped node, without the space of removed rows, and verifies each copy \
before it replaces the old database. Needs as much free disk space as the larger database takes. A kill at any moment \
leaves either the old database or the new one.

Examples:
  systemctl stop dhtstore && dhtstore compact && systemctl start dhtstore")]
pub struct Args {
    #[command(flatten)]
    format: FormatArg,
}

#[derive(Debug, Serialize)]
struct Row {
    database: &'static str,
    rows: u64,
    bytes_before: u64,
    bytes_after: u64,
}

const ROW: Schema = Schema { columns: &["database", "rows", "bytes_before", "bytes_after"], id: "database" };

/// Runs the command.
pub async fn execute(args: Args, context: &Context) -> Result<()> {
    let config = context.config()?;
    if Server::connect_if_running(context).await?.is_some() {
        return Err(CliError::try_again(
            "cannot compact the databases: the server is running; stop it, then run `dhtstore compact` again",
        ));
    }
    dump::not_in_use(config)?;
    let done = compact::compact(&config.data_dir, config.store_settings(), SystemClock::new()).await?;
    let mut rows = Rows::stdout(args.format.resolve(context), ROW);
    for compact::Compacted { name, rows: n, bytes_before, bytes_after } in done {
        rows.push(&Row { database: name, rows: n, bytes_before, bytes_after })?;
    }
    rows.finish().map(drop)
}
