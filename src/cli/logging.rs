//! Log lines on stderr. Logging is best effort: a server whose stderr is closed, full or never read works on.

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

/// Set by systemd when stderr goes to the journal, which dates lines by itself.
const JOURNAL_STREAM: &str = "JOURNAL_STREAM";

/// Lines that wait for the thread that writes them, some 200 bytes each; further ones are dropped and counted.
const WAITING_LINES: usize = 4096;

/// Time for the last lines to be written when the process ends, in steps: a reader that sleeps holds up no end.
const LAST_LINES: (u32, Duration) = (50, Duration::from_millis(20));

/// The lines of a server.
static LINES: OnceLock<Lines> = OnceLock::new();

/// Where the log of this process goes.
#[derive(Debug)]
pub struct Log(Option<Lines>);

/// Lines on their way to stderr by a thread of their own.
#[derive(Clone, Debug)]
struct Lines {
    queue: NonBlocking,
    /// Lines that were handed to the queue, dropped ones included.
    queued: Arc<AtomicU64>,
    written: Arc<Written>,
}

#[derive(Default, Debug)]
struct Written {
    tried: AtomicU64,
    failed: AtomicU64,
}

/// stderr as the thread writes to it. An error loses a line and no more.
struct Stderr(Arc<Written>);

/// Sends log lines to stderr: `info` and above for the server, `warn` for a short command; `-v`, `-q` and above all
/// `RUST_LOG` change that. No colour codes unless stderr is a terminal. A second call does nothing.
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
    // Errors of its own tracing-subscriber would print by `eprintln!`, which panics where stderr is gone.
    let builder = fmt().with_env_filter(filter).with_writer(writer).with_ansi(use_colour()).log_internal_errors(false);
    let in_journal = std::env::var_os(JOURNAL_STREAM).is_some() && !io::stderr().is_terminal();
    // An error means that a subscriber is set already (tests): keep that one.
    let _ = match (global.log_format, in_journal) {
        (LogFormat::Json, _) => builder.with_timer(SystemTime).json().flatten_event(true).try_init(),
        (LogFormat::Text, true) => builder.without_time().with_target(false).try_init(),
        (LogFormat::Text, false) => builder.with_target(false).try_init(),
    };
    if server {
        // std's hook writes to stderr itself: where nobody reads that, a task that panics would stand still in the hook.
        std::panic::set_hook(Box::new(log_panic));
    }
    if let Some(error) = bad {
        tracing::warn!(%error, "RUST_LOG is not understood and passed over; write it like dhtstore=debug");
    }
    Log(lines)
}

/// Logs a panic, whether it is caught later or not, as one line like any other.
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

/// Log lines of this server that were lost: the queue was full, or stderr failed.
pub fn lost_lines() -> u64 {
    LINES.get().map_or(0, Lines::lost)
}

impl Log {
    /// Writes a last line, such as the error that ends the process, and waits at most a second until a server's lines are
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
        // Dropped, it would print its own trouble to stdout; `Log::end` waits instead.
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
