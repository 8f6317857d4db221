//! `dhtstore closest`

use super::{Context, error::Result};

/// Arguments of `dhtstore closest`.
#[derive(clap::Args, Debug)]
pub struct Args {}

/// Runs the command.
pub async fn execute(_args: Args, _context: &Context) -> Result<()> {
    Err(super::CliError::other("not available yet"))
}
