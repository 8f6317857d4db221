//! Log lines on stderr.

use super::{Global, LogFormat};
use std::io::IsTerminal;
use tracing_subscriber::{EnvFilter, fmt, fmt::time::SystemTime};

/// Set by systemd when stderr goes to the journal, which dates lines by itself.
const JOURNAL_STREAM: &str = "JOURNAL_STREAM";

/// Sends log lines to stderr: `info` and above for the server, `warn` for a short command; `-v`, `-q` and above all
/// `RUST_LOG` change that. No colour codes unless stderr is a terminal. A second call does nothing.
pub fn init(global: &Global, server: bool) {
    let (filter, bad) = match std::env::var(EnvFilter::DEFAULT_ENV).map(EnvFilter::try_new) {
        Ok(Ok(filter)) => (filter, None),
        Ok(Err(error)) => (EnvFilter::new(directives(global, server)), Some(error)),
        Err(_) => (EnvFilter::new(directives(global, server)), None),
    };
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(use_colour());
    let in_journal = std::env::var_os(JOURNAL_STREAM).is_some() && !std::io::stderr().is_terminal();
    // An error means that a subscriber is set already (tests): keep that one.
    let _ = match (global.log_format, in_journal) {
        (LogFormat::Json, _) => builder.with_timer(SystemTime).json().flatten_event(true).try_init(),
        (LogFormat::Text, true) => builder.without_time().with_target(false).try_init(),
        (LogFormat::Text, false) => builder.with_target(false).try_init(),
    };
    if let Some(error) = bad {
        tracing::warn!(%error, "RUST_LOG is not understood and passed over; write it like dhtstore=debug");
    }
}

fn use_colour() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// Our own crate's level by the flags; libraries one step quieter, since they speak of single messages.
fn directives(global: &Global, server: bool) -> &'static str {
    match (global.quiet, global.verbose, server) {
        (2.., ..) => "error",
        (1, ..) => "warn",
        (0, 0, true) => "warn,dhtstore=info",
        (0, 0, false) => "warn",
        (0, 1, true) => "info,dhtstore=debug",
        (0, 1, false) => "warn,dhtstore=info",
        (0, 2, _) => "info,dhtstore=debug",
        (0, 3.., _) => "debug,dhtstore=trace",
    }
}
