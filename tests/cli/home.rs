//! Runs the real program with a home directory and an environment of its own.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// A temporary home directory, so that no configuration of this machine is read.
pub struct Home(tempfile::TempDir);

/// The result of a process.
#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Home {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Returns the data directory of [`Home::run`].
    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Runs `dhtstore --data-dir <home>/data ARGS`.
    pub fn run(&self, args: &[&str]) -> Outcome {
        self.run_with(&[], args)
    }

    pub fn run_with(&self, env: &[(&str, &str)], args: &[&str]) -> Outcome {
        let data = self.data();
        let args: Vec<&str> =
            if args.is_empty() { vec![] } else { [&["--data-dir", data.to_str().unwrap()], args].concat() };
        self.run_bare(env, &args)
    }

    /// Runs `dhtstore ARGS`.
    pub fn run_bare(&self, env: &[(&str, &str)], args: &[&str]) -> Outcome {
        let output = self.command(env, args).output().unwrap();
        Outcome {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    pub fn command(&self, env: &[(&str, &str)], args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dhtstore"));
        command
            .env_clear()
            .env("HOME", self.0.path())
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(env.iter().copied())
            .args(args)
            .current_dir(self.0.path())
            .stdin(Stdio::null());
        command
    }
}

pub fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}
