//! Log lines on stderr. Logging is best effort: a server keeps working while its stderr is closed, full or never read.

use super::{Global, LogFormat};
use crate::vital::panic_text;
use std::{
    backtrace::{Backtrace, BacktraceStatus},
    io::{self, IsTerminal, Write},
    panic::PanicHookInfo,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder};
use tracing_subscriber::{
    EnvFilter, fmt,
    fmt::{MakeWriter, time::SystemTime, writer::BoxMakeWriter},
};

/// Variable that systemd sets when stderr goes to the journal, which adds the time itself.
const JOURNAL_STREAM: &str = "JOURNAL_STREAM";

/// Capacity of the queue to the writing thread, in lines of some 200 bytes. Further lines are dropped and counted.
const WAITING_LINES: usize = 4096;

/// Time to write the last lines when the process ends, as a number of steps. A reader that sleeps delays the end by no
/// more than this.
const LAST_LINES: (u32, Duration) = (50, Duration::from_millis(20));

/// The queue of a server's log lines.
static LINES: OnceLock<Lines> = OnceLock::new();

/// Destination of this process's log.
#[derive(Debug)]
pub struct Log(Option<Lines>);

/// Log lines that a separate thread writes to stderr.
#[derive(Clone, Debug)]
struct Lines {
    queue: NonBlocking,
    /// Lines passed to the queue, including those that it dropped.
    queued: Arc<AtomicU64>,
    written: Arc<Written>,
}

#[derive(Default, Debug)]
struct Written {
    tried: AtomicU64,
    failed: AtomicU64,
}

/// The writing thread's stderr. An error loses one line and is counted.
struct Stderr(Arc<Written>);

/// Sends log lines to stderr: `info` and above for the server, `warn` and above for other commands. `-v` and `-q`
/// change the level, and `RUST_LOG` overrides both. Colours are used only on a terminal. A second call does nothing.
pub fn init(global: &Global, server: bool) -> Log {
    let (filter, bad) = match std::env::var(EnvFilter::DEFAULT_ENV).map(EnvFilter::try_new) {
        Ok(Ok(filter)) => (filter, None),
        Ok(Err(error)) => (EnvFilter::new(directives(global, server)), Some(error)),
        Err(_) => (EnvFilter::new(directives(global, server)), None),
    };
    let lines = server.then(|| LINES.get_or_init(Lines::to_stderr).clone());
    let writer = match &lines {
        Some(lines) => BoxMakeWriter::new(lines.clone()),
        None => BoxMakeWriter::new(io::stderr),
    };
    // tracing-subscriber would print its own errors with `eprintln!`, which panics if stderr is closed.
    let builder = fmt().with_env_filter(filter).with_writer(writer).with_ansi(use_colour()).log_internal_errors(false);
    let in_journal = std::env::var_os(JOURNAL_STREAM).is_some() && !io::stderr().is_terminal();
    // An error means that a subscriber is already set, as in tests. It is kept.
    let _ = match (global.log_format, in_journal) {
        (LogFormat::Json, _) => builder.with_timer(SystemTime).json().flatten_event(true).try_init(),
        (LogFormat::Text, true) => builder.without_time().with_target(false).try_init(),
        (LogFormat::Text, false) => builder.with_target(false).try_init(),
    };
    if server {
        // std's hook writes to stderr directly. If nobody reads stderr, a task that panics would block in it.
        std::panic::set_hook(Box::new(log_panic));
    }
    if let Some(error) = bad {
        tracing::warn!(%error, "cannot parse RUST_LOG, so it is ignored; write it like dhtstore=debug");
    }
    Log(lines)
}

/// Logs a panic as one line, whether it is caught later or not.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| tracing::field::display(backtrace));
    tracing::error!(
        thread = thread::current().name().unwrap_or("unnamed"),
        place = panic.location().map(tracing::field::display),
        panic = panic_text(panic.payload()),
        backtrace,
        "panicked"
    );
}

/// Returns the number of log lines lost because the queue was full or stderr failed.
pub fn lost_lines() -> u64 {
    LINES.get().map_or(0, Lines::lost)
}

impl Log {
    /// Writes a last line, such as the error that ends the process. Waits up to a second for a server's lines to be
    /// written.
    pub fn end(self, last: Option<String>) {
        let Some(mut lines) = self.0 else {
            if let Some(last) = last {
                let _ = writeln!(io::stderr(), "{last}");
            }
            return;
        };
        if let Some(last) = last {
            lines.queued.fetch_add(1, Ordering::AcqRel);
            let _ = lines.queue.write_all(format!("{last}\n").as_bytes());
        }
        let (steps, step) = LAST_LINES;
        for _ in 0..steps {
            if lines.is_written() {
                return;
            }
            thread::sleep(step);
        }
    }
}

impl Lines {
    fn to_stderr() -> Self {
        let written = Arc::<Written>::default();
        let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(WAITING_LINES).thread_name("log");
        let (queue, guard) = builder.finish(Stderr(Arc::clone(&written)));
        // Dropping the guard could print errors to stdout. `Log::end` waits for the lines instead.
        std::mem::forget(guard);
        Self { queue, queued: Arc::default(), written }
    }

    fn dropped(&self) -> u64 {
        self.queue.error_counter().dropped_lines() as u64
    }

    fn lost(&self) -> u64 {
        self.dropped() + self.written.failed.load(Ordering::Acquire)
    }

    fn is_written(&self) -> bool {
        self.written.tried.load(Ordering::Acquire) + self.dropped() >= self.queued.load(Ordering::Acquire)
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = NonBlocking;

    fn make_writer(&'a self) -> Self::Writer {
        self.queued.fetch_add(1, Ordering::AcqRel);
        self.queue.make_writer()
    }
}

impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let failed = io::stderr().write_all(line).is_err();
        self.0.failed.fetch_add(u64::from(failed), Ordering::AcqRel);
        self.0.tried.fetch_add(1, Ordering::AcqRel);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn use_colour() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// Returns the log levels for the flags. Libraries log one level less than dhtstore, because they log
/// individual messages.
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
