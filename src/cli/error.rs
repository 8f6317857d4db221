//! Failures of commands: one message and one exit code that scripts and systemd can rely on.

use crate::{
    config::ConfigError,
    control::server::ControlError,
    daemon::DaemonError,
    node::{NodeError, RpcError, asn::AsnError},
    schedule::ScheduleError,
    store::StoreError,
    transport::{certificate::CertificateError, identity::IdentityError, swarm_key::SwarmKeyError},
};
use std::{fmt, io, path::Path, process::ExitCode};

/// Exit codes, a contract with scripts and with `RestartPreventExitStatus` of the unit. Numbers as in `sysexits.h`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Code {
    /// Done; also if the reader of our output closed the pipe (`| head`).
    Ok = 0,
    /// Any failure without a code of its own.
    Other = 1,
    /// The command line is wrong.
    Usage = 64,
    /// Input or a file (identity, swarm key, certificate, database rows) is damaged, malformed or missing.
    Data = 65,
    /// No database found; the message lists the directories that were tried.
    NoDatabase = 66,
    /// The server does not answer on its control socket.
    Unavailable = 69,
    /// A file or directory cannot be created or read, or exists and must not be overwritten.
    CannotCreate = 73,
    /// In use by another process; a later try may succeed.
    TryAgain = 75,
    /// The configuration is wrong.
    Config = 78,
}

/// Why a command failed. Printed as `error: …` on stderr by `main`, which then exits with [`CliError::code`].
#[derive(Debug)]
pub struct CliError {
    code: Code,
    message: String,
}

/// Result of a command.
pub type Result<T, E = CliError> = std::result::Result<T, E>;

impl CliError {
    /// Creates an error. The message is `cannot DO THING: reason; next step`: lower case, without a full stop.
    pub fn new(code: Code, message: impl fmt::Display) -> Self {
        Self { code, message: message.to_string() }
    }

    /// Creates an error with exit 1.
    pub fn other(message: impl fmt::Display) -> Self {
        Self::new(Code::Other, message)
    }

    /// Creates an error with exit 64.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self::new(Code::Usage, message)
    }

    /// Creates the error for a file that was named on the command line and cannot be opened: exit 65.
    pub fn unreadable(path: &Path, error: &io::Error) -> Self {
        Self::data(format_args!("cannot read {}: {error}; give the path of a file, or `-` for stdin", path.display()))
    }

    /// Creates an error with exit 65.
    pub fn data(message: impl fmt::Display) -> Self {
        Self::new(Code::Data, message)
    }

    /// Creates the error for a missing database: exit 66. Names the directories that were tried.
    pub fn no_database<P: AsRef<Path>>(tried: &[P]) -> Self {
        let dirs: Vec<String> = tried.iter().map(|p| p.as_ref().display().to_string()).collect();
        Self::new(
            Code::NoDatabase,
            format_args!(
                "cannot find a dhtstore database in {}; name the data directory with --data-dir or DHTSTORE_DATA_DIR, \
                 or create one with `dhtstore run`",
                dirs.join(", ")
            ),
        )
    }

    /// Creates an error with exit 69.
    pub fn unavailable(message: impl fmt::Display) -> Self {
        Self::new(Code::Unavailable, message)
    }

    /// Creates an error with exit 73.
    pub fn cannot_create(message: impl fmt::Display) -> Self {
        Self::new(Code::CannotCreate, message)
    }

    /// Creates an error with exit 75.
    pub fn try_again(message: impl fmt::Display) -> Self {
        Self::new(Code::TryAgain, message)
    }

    /// Creates an error with exit 78.
    pub fn config(message: impl fmt::Display) -> Self {
        Self::new(Code::Config, message)
    }

    /// Creates the error for a closed pipe: no message, exit 0.
    pub fn closed_pipe() -> Self {
        Self { code: Code::Ok, message: String::new() }
    }

    /// Returns whether this is [`CliError::closed_pipe`].
    pub fn is_closed_pipe(&self) -> bool {
        self.code == Code::Ok
    }

    /// Returns the exit code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// Puts `doing` in front of the message.
    #[must_use]
    pub fn context(self, doing: impl fmt::Display) -> Self {
        if self.is_closed_pipe() {
            return self;
        }
        Self { code: self.code, message: format!("{doing}: {}", self.message) }
    }
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        ExitCode::from(code as u8)
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CliError {}

impl From<io::Error> for CliError {
    /// A closed pipe is not a failure. Everything else is exit 1, unless the caller sets another code.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::closed_pipe(),
            _ => Self::other(error),
        }
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        Self::config(error)
    }
}

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        if let StoreError::Locked(path) = &error {
            return Self::try_again(format_args!(
                "cannot open {}: it is in use by another process; stop that process, or name another directory with \
                 --data-dir",
                path.display()
            ));
        }
        let code = match &error {
            StoreError::NoDatabase(_) => Code::NoDatabase,
            StoreError::Locked(_) | StoreError::Degraded(_) => Code::TryAgain,
            StoreError::Io { doing: "create", .. } => Code::CannotCreate,
            StoreError::Io { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied
                | io::ErrorKind::ReadOnlyFilesystem
                | io::ErrorKind::StorageFull
                | io::ErrorKind::QuotaExceeded
                | io::ErrorKind::NotADirectory
                | io::ErrorKind::AlreadyExists => Code::CannotCreate,
                _ => Code::Other,
            },
            StoreError::NotEmpty { .. } => Code::CannotCreate,
            // `Unfinished` means half of a database. A restart does not help.
            StoreError::BadFilter { .. } | StoreError::Unfinished(_) => Code::Data,
            // Another version must be installed: a restart does not help.
            StoreError::FromTheFuture { .. } => Code::Config,
            // Includes a full disk, so this is not "bad data": a restart may help.
            StoreError::Database(_) | StoreError::Full { .. } => Code::Other,
        };
        Self::new(code, error)
    }
}

impl From<NodeError> for CliError {
    /// A port in use is exit 1: it may be free after a restart, so systemd should try again.
    fn from(error: NodeError) -> Self {
        match error {
            NodeError::SwarmKey(error) => error.into(),
            NodeError::Asn(error) => error.into(),
            NodeError::Certificate(error) => error.into(),
            error => Self::other(error),
        }
    }
}

impl From<AsnError> for CliError {
    /// Every failure means that the setting names the wrong file.
    fn from(error: AsnError) -> Self {
        Self::config(error)
    }
}

impl From<RpcError> for CliError {
    fn from(error: RpcError) -> Self {
        Self::other(error)
    }
}

impl From<IdentityError> for CliError {
    fn from(error: IdentityError) -> Self {
        let code = match &error {
            IdentityError::Read { .. } | IdentityError::Damaged { .. } => Code::Data,
            IdentityError::Create { .. } | IdentityError::Exists(_) => Code::CannotCreate,
        };
        Self::new(code, error)
    }
}

impl From<CertificateError> for CliError {
    fn from(error: CertificateError) -> Self {
        Self::data(error)
    }
}

impl From<SwarmKeyError> for CliError {
    fn from(error: SwarmKeyError) -> Self {
        let code = match &error {
            SwarmKeyError::Read { .. } | SwarmKeyError::Malformed { .. } => Code::Data,
            SwarmKeyError::Create { .. } | SwarmKeyError::Exists(_) => Code::CannotCreate,
            SwarmKeyError::Random(_) => Code::Other,
        };
        Self::new(code, error)
    }
}

impl From<ControlError> for CliError {
    fn from(error: ControlError) -> Self {
        let code = match error {
            ControlError::PathTooLong { .. } => Code::Config,
            ControlError::InUse(_) => Code::TryAgain,
            ControlError::NotASocket(_) | ControlError::Io { .. } => Code::CannotCreate,
        };
        Self::new(code, error)
    }
}

impl From<ScheduleError> for CliError {
    fn from(error: ScheduleError) -> Self {
        let code = match error {
            ScheduleError::Cron { .. } => Code::Config,
            ScheduleError::Scheduler(_) => Code::Other,
        };
        Self::new(code, error)
    }
}

impl From<DaemonError> for CliError {
    /// Keeps the code of the cause.
    fn from(error: DaemonError) -> Self {
        match error {
            DaemonError::Config(error) => error.into(),
            DaemonError::SwarmKey(error) => error.into(),
            DaemonError::Identity(error) => error.into(),
            DaemonError::Store(error) => error.into(),
            DaemonError::Control(error) => error.into(),
            DaemonError::Node(error) => error.into(),
            DaemonError::Schedule(error) => error.into(),
            DaemonError::OpenFiles { .. } => Self::config(error),
            DaemonError::Panicked(_) | DaemonError::Failed(_) | DaemonError::NotStopped(_) => Self::other(error),
        }
    }
}

/// `.context("doing what")` and `.code(..)` on results.
pub trait ResultExt<T> {
    /// Puts `doing` in front of the message.
    fn context(self, doing: impl fmt::Display) -> Result<T>;
    /// Sets the exit code. A closed pipe stays exit 0.
    fn code(self, code: Code) -> Result<T>;
}

impl<T, E: Into<CliError>> ResultExt<T> for std::result::Result<T, E> {
    fn context(self, doing: impl fmt::Display) -> Result<T> {
        self.map_err(|e| e.into().context(doing))
    }

    fn code(self, code: Code) -> Result<T> {
        self.map_err(|e| {
            let error = e.into();
            if error.is_closed_pipe() { error } else { CliError { code, ..error } }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_pipe_is_exit_0_however_it_is_wrapped() {
        let pipe = || io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(CliError::from(pipe()).is_closed_pipe());
        let wrapped: Result<()> = Err(pipe()).context("writing").code(Code::Data);
        assert_eq!(wrapped.map_err(|e| e.code()), Err(Code::Ok));
    }

    #[test]
    fn store_errors_have_the_codes_of_the_contract() {
        let io = |kind| StoreError::Io { doing: "create", path: "/x".into(), source: io::Error::from(kind) };
        for (error, code) in [
            (StoreError::NoDatabase("/x".into()), 66),
            (StoreError::Locked("/x".into()), 75),
            (io(io::ErrorKind::PermissionDenied), 73),
            (StoreError::FromTheFuture { found: 9, known: 1 }, 78),
        ] {
            assert_eq!(CliError::from(error).code() as u8, code);
        }
    }

    #[test]
    fn a_missing_database_lists_the_directories_tried() {
        let text = CliError::no_database(&["/a", "/b"]).to_string();
        assert!(text.contains("/a, /b") && text.contains("--data-dir"), "{text}");
    }
}
