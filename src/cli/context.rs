//! The context of every command: global options, terminal, configuration.

use super::error::Result;
use crate::config::{Config, file::Sources};
use clap::{ArgAction, ValueEnum};
use std::{
    fmt,
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// Options common to all commands.
#[derive(clap::Args, Clone, Default, Debug)]
pub struct Global {
    /// Configuration file [default: dhtstore.toml in the data directory, else /etc/dhtstore/dhtstore.toml for root or
    /// ~/.config/dhtstore/dhtstore.toml]
    #[arg(long, global = true, value_name = "FILE", env = "DHTSTORE_CONFIG", help_heading = "Global options")]
    pub config: Option<PathBuf>,
    /// Data directory [default: ~/.local/state/dhtstore; /var/lib/dhtstore for root and the service]
    #[arg(long, global = true, value_name = "DIR", env = "DHTSTORE_DATA_DIR", help_heading = "Global options")]
    pub data_dir: Option<PathBuf>,
    /// Change one setting for this command, like `records.ttl=3h`; overrides environment and file; repeatable
    #[arg(long = "set", global = true, value_name = "KEY=VALUE", help_heading = "Global options")]
    pub set: Vec<String>,
    /// Format of log lines on stderr
    #[arg(long, global = true, value_enum, value_name = "FORMAT", default_value_t, help_heading = "Global options")]
    pub log_format: LogFormat,
    /// Log more; give it twice for even more (RUST_LOG overrides it)
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = "Global options")]
    pub verbose: u8,
    /// Print no notices or progress on stderr; give it twice for errors only
    #[arg(
        short,
        long,
        global = true,
        action = ArgAction::Count,
        conflicts_with = "verbose",
        help_heading = "Global options"
    )]
    pub quiet: u8,
}

/// Format of log lines.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, ValueEnum)]
pub enum LogFormat {
    /// Plain text, for people
    #[default]
    Text,
    /// One JSON object per line
    Json,
}

/// Context of a command. Loads the configuration at its first use.
#[derive(Debug)]
pub struct Context {
    /// The global options as given.
    pub global: Global,
    /// Whether stdout is a terminal. Decides the default output format.
    pub stdout_is_terminal: bool,
    /// Whether stderr is a terminal. Decides whether progress bars and colours are shown.
    pub stderr_is_terminal: bool,
    config: OnceLock<Config>,
}

impl Context {
    /// Creates the context of this process.
    pub fn new(global: Global) -> Self {
        Self {
            global,
            stdout_is_terminal: std::io::stdout().is_terminal(),
            stderr_is_terminal: std::io::stderr().is_terminal(),
            config: OnceLock::new(),
        }
    }

    /// Returns the sources of the settings of this command.
    pub fn sources(&self) -> Sources {
        Sources {
            file: self.global.config.clone(),
            data_dir: self.global.data_dir.clone(),
            set: self.global.set.clone(),
        }
    }

    /// Returns the effective, validated configuration, loaded once. Exit 78 if it is wrong.
    pub fn config(&self) -> Result<&Config> {
        if let Some(config) = self.config.get() {
            return Ok(config);
        }
        let config = self.sources().load()?;
        Ok(self.config.get_or_init(|| config))
    }

    /// Returns the data directory: from the flag, else the environment, else the file, else the platform's default.
    pub fn data_dir(&self) -> Result<&Path> {
        Ok(&self.config()?.data_dir)
    }

    /// Prints on stderr a notice that is neither data nor an error. Silent with `-q`.
    pub fn notice(&self, text: impl fmt::Display) {
        if self.global.quiet == 0 {
            // A failed stderr cannot be reported anywhere.
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }

    /// Returns whether `-v` was given: `findprovs -v` shows every hop.
    pub fn verbose(&self) -> bool {
        self.global.verbose > 0
    }
}
