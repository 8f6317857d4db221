//! Where settings come from: flags > environment > file > defaults of the profile.
//!
//! One file is read: `--config`, else `$DHTSTORE_CONFIG`, else `dhtstore.toml` in the data directory (that of
//! `--data-dir`, `$DHTSTORE_DATA_DIR` or the platform) if it exists, else the user's ([`defaults::config_file`]) if it
//! exists, else none. Every setting has an environment variable: `DHTSTORE_` and its key in capitals, with `_` for `.`
//! and `-`: `records.ttl` is `DHTSTORE_RECORDS_TTL`. Lists are separated by commas. Unknown keys and unknown `DHTSTORE_`
//! variables are errors, since a misspelt limit is no limit. Relative paths are relative to the file that holds them, else
//! to the working directory.

use super::{
    Config, ConfigError, Profile, Warning, defaults,
    keys::{ENV_PREFIX, KEYS, Kind, RETIRED, did_you_mean, is_section, nearest, suggestion, variable},
};
use crate::files::{is_present, read_bounded};
use figment::{
    Figment, Metadata, Provider,
    providers::Serialized,
    value::{Dict, Map, Tag, Value},
};
use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

/// Variables that are not settings of [`Config`].
const ENV_OTHER: [&str; 1] = ["DHTSTORE_CONFIG"];
/// A configuration file beyond this size is some other file.
pub(crate) const MAX_FILE_BYTES: u64 = 1 << 20;
/// The name of the configuration file.
pub const FILE_NAME: &str = "dhtstore.toml";

/// What the command line says about settings. Environment variables are read from the process.
#[derive(Clone, Default, Debug)]
pub struct Sources {
    /// `--config` or `$DHTSTORE_CONFIG`: this file and no other.
    pub file: Option<PathBuf>,
    /// `--data-dir` or `$DHTSTORE_DATA_DIR`.
    pub data_dir: Option<PathBuf>,
    /// `--set key=value`.
    pub set: Vec<String>,
}

/// Where a setting comes from.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Origin {
    /// The defaults of the profile.
    Default,
    /// `swarm.key` lies in the data directory.
    DataDir,
    /// The configuration file.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// The command line.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::DataDir => f.write_str("found in the data directory"),
            Origin::File(path) => path.display().fmt(f),
            Origin::Environment(name) => f.write_str(name),
            Origin::Flag(name) => f.write_str(name),
        }
    }
}

/// The outcome of loading.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The effective settings, validated.
    pub config: Config,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    /// Where each setting that is not a default comes from.
    pub origins: BTreeMap<String, Origin>,
    /// What is allowed but probably not meant.
    pub warnings: Vec<Warning>,
}

impl Loaded {
    /// Where the setting `key` comes from.
    pub fn origin(&self, key: &str) -> &Origin {
        self.origins.get(key).unwrap_or(&Origin::Default)
    }
}

impl Sources {
    /// The effective, validated configuration.
    pub fn load(&self) -> Result<Config, ConfigError> {
        self.load_detailed().map(|loaded| loaded.config)
    }

    /// The same with origins and warnings.
    pub fn load_detailed(&self) -> Result<Loaded, ConfigError> {
        self.load_with(environment())
    }

    /// The same as though the file `path` were the one to be read, and held `text`.
    pub fn load_as(&self, path: &Path, text: &str) -> Result<Loaded, ConfigError> {
        self.read(environment(), Some((path.to_owned(), text.to_owned())))
    }

    /// The same with an environment of one's choice.
    fn load_with(&self, environment: BTreeMap<String, String>) -> Result<Loaded, ConfigError> {
        let file = self.find_file().map(|path| read(&path).map(|text| (path, text))).transpose()?;
        self.read(environment, file)
    }

    /// `file`: path and text.
    fn read(
        &self,
        environment: BTreeMap<String, String>,
        file: Option<(PathBuf, String)>,
    ) -> Result<Loaded, ConfigError> {
        let mut settings = Settings::default();
        if let Some((path, text)) = &file {
            settings.read_file(path, text)?;
        }
        let file = file.map(|(path, _)| path);
        settings.read_environment(environment);
        settings.read_flags(self);
        settings.finish(file)
    }

    /// Whether a configuration file in the directory `dir`, if there were one, would be the one that is read.
    pub fn finds_in(&self, dir: &Path) -> bool {
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        match &self.file {
            Some(file) => absolute(file) == absolute(dir).join(FILE_NAME),
            None => self.search_dir().is_some_and(|found| absolute(&found) == absolute(dir)),
        }
    }

    fn find_file(&self) -> Option<PathBuf> {
        if self.file.is_some() {
            return self.file.clone();
        }
        let in_data_dir = self.search_dir().map(|dir| dir.join(FILE_NAME));
        [in_data_dir, defaults::config_file()].into_iter().flatten().find(|path| is_present(path))
    }

    fn search_dir(&self) -> Option<PathBuf> {
        self.data_dir.clone().or_else(defaults::data_dir)
    }
}

/// Variables of this process that are ours.
fn environment() -> BTreeMap<String, String> {
    let ours = std::env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok().filter(|name| name.starts_with(ENV_PREFIX))?;
        Some((name, value.to_string_lossy().into_owned()))
    });
    ours.collect()
}

/// Settings as they are gathered, the later over the earlier.
#[derive(Default)]
struct Settings {
    values: BTreeMap<&'static str, (Value, Origin)>,
    problems: Vec<String>,
    /// Of older versions.
    retired: Vec<(Warning, Origin)>,
}

impl Settings {
    /// Notes a setting that there is no more. False if there never was one.
    fn retire(&mut self, origin: &Origin, is_it: impl Fn(&str) -> bool) -> bool {
        let found = RETIRED.iter().find(|(key, _)| is_it(key));
        self.retired.extend(found.map(|(key, why)| (Warning { key, message: (*why).into() }, origin.clone())));
        found.is_some()
    }

    fn read_file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| ConfigError::Syntax {
            path: path.into(),
            message: e.to_string().trim_end().into(),
        })?;
        let origin = Origin::File(path.into());
        let value = Value::serialize(table).map_err(|e| ConfigError::invalid(format!("{}: {e}", path.display())))?;
        let base = std::path::absolute(path).ok().and_then(|p| p.parent().map(Path::to_path_buf)).unwrap_or_default();
        self.walk("", value, &origin, &base);
        Ok(())
    }

    /// Takes settings out of nested tables.
    fn walk(&mut self, prefix: &str, value: Value, origin: &Origin, base: &Path) {
        if let Some((key, kind)) = KEYS.iter().find(|(key, _)| *key == prefix) {
            let value = match (kind, value.as_str()) {
                (Kind::Path, Some(path)) => Value::from(absolute(path, base)),
                _ => value,
            };
            self.values.insert(key, (value, origin.clone()));
            return;
        }
        if self.retire(origin, |key| key == prefix) {
            return;
        }
        match value {
            Value::Dict(_, entries) if is_section(prefix) => {
                for (name, value) in entries {
                    let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
                    self.walk(&key, value, origin, base);
                }
            }
            _ if is_section(prefix) => self.problems.push(format!("{origin}: {prefix} is a section; write [{prefix}]")),
            _ => self.problems.push(format!("{origin}: unknown setting {prefix}{}", suggestion(prefix))),
        }
    }

    fn read_environment(&mut self, environment: BTreeMap<String, String>) {
        for (name, text) in environment {
            if ENV_OTHER.contains(&name.as_str()) || !name.starts_with(ENV_PREFIX) {
                continue;
            }
            match KEYS.iter().find(|(key, _)| variable(key) == name) {
                Some((key, kind)) => self.set_text(key, *kind, &text, Origin::Environment(name)),
                None if self.retire(&Origin::Environment(name.clone()), |key| variable(key) == name) => {}
                None => {
                    let known = KEYS.iter().map(|(key, _)| variable(key)).chain(ENV_OTHER.map(String::from));
                    let nearest = nearest(&name, known);
                    self.problems.push(format!("unknown environment variable {name}{}", did_you_mean(nearest)));
                }
            }
        }
    }

    fn read_flags(&mut self, sources: &Sources) {
        for assignment in &sources.set {
            let Some((key, text)) = assignment.split_once('=') else {
                self.problems.push(format!("--set {assignment}: write key=value, like records.ttl=3h"));
                continue;
            };
            match KEYS.iter().find(|(known, _)| *known == key.trim()) {
                Some((key, kind)) => self.set_text(key, *kind, text, Origin::Flag("--set")),
                None if self.retire(&Origin::Flag("--set"), |known| known == key.trim()) => {}
                None => self.problems.push(format!("--set: unknown setting {key}{}", suggestion(key))),
            }
        }
        if let Some(dir) = &sources.data_dir {
            let dir = dir.to_string_lossy();
            // clap has it from the flag or from the variable: if they say the same, it was the variable.
            let from_variable = self.values.get("data_dir").is_some_and(|(value, origin)| {
                matches!(origin, Origin::Environment(_)) && value.as_str() == Some(&absolute(&dir, Path::new("")))
            });
            if !from_variable {
                self.set_text("data_dir", Kind::Path, &dir, Origin::Flag("--data-dir"));
            }
        }
    }

    fn set_text(&mut self, key: &'static str, kind: Kind, text: &str, origin: Origin) {
        let value = match kind {
            Kind::Text => Value::from(text),
            Kind::Path => Value::from(absolute(text, Path::new(""))),
            Kind::List => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                Value::Array(Tag::Default, items.map(Value::from).collect())
            }
            Kind::Number => match text.trim().replace('_', "").parse::<u64>() {
                Ok(number) => Value::from(number),
                Err(_) => {
                    self.problems.push(format!("{origin}: {key}: \"{text}\" is not a number"));
                    return;
                }
            },
            Kind::Switch => match text.trim() {
                "true" => Value::from(true),
                "false" => Value::from(false),
                _ => {
                    self.problems.push(format!("{origin}: {key}: \"{text}\" is neither true nor false"));
                    return;
                }
            },
        };
        self.values.insert(key, (value, origin));
    }

    fn finish(mut self, file: Option<PathBuf>) -> Result<Loaded, ConfigError> {
        let profile = self.profile();
        let mut figment = Figment::from(Serialized::defaults(Config::defaults(profile)));
        for (key, (value, origin)) in &self.values {
            figment = figment.merge(Setting { key, value, origin });
        }
        // One at a time, so that a value that does not fit is reported beside all others.
        let config = match figment.extract::<Config>() {
            Ok(config) => Some(config),
            Err(errors) => {
                for error in errors {
                    let key = error.path.join(".");
                    let place = match self.values.get(key.as_str()).or_else(|| self.values.get(key.rsplit_once('.')?.0))
                    {
                        Some((_, Origin::Flag(flag))) => format!("{flag}: {key}"),
                        Some((_, origin)) => format!("{origin}: {key}"),
                        None => key,
                    };
                    self.problems.push(format!("{place}: {}", error.kind));
                }
                None
            }
        };
        let Some(mut config) = config.filter(|_| self.problems.is_empty()) else {
            return Err(ConfigError::Invalid { problems: self.problems });
        };
        if config.data_dir.as_os_str().is_empty() {
            return Err(ConfigError::invalid(NO_DATA_DIR));
        }
        let mut origins: BTreeMap<_, _> =
            self.values.into_iter().map(|(key, (_, origin))| (key.to_owned(), origin)).collect();
        if config.swarm_key.is_none() {
            let key = Config::default_swarm_key(&config.data_dir);
            if is_present(&key) {
                config.swarm_key = Some(key);
                origins.insert("swarm_key".into(), Origin::DataDir);
            }
        }
        let mut warnings = config.validate().map_err(|e| located(e, &origins))?;
        for (warning, origin) in self.retired {
            origins.insert(warning.key.to_owned(), origin);
            warnings.push(warning);
        }
        Ok(Loaded { config, file, origins, warnings })
    }

    /// The profile decides on the defaults, so it is looked at first. A wrong one is reported with everything else.
    fn profile(&self) -> Profile {
        let named = self.values.get("profile").and_then(|(value, _)| value.as_str());
        match named {
            Some(name) if name == Profile::Amino.name() => Profile::Amino,
            _ => Profile::default(),
        }
    }
}

/// One setting as a source of figment's.
struct Setting<'a> {
    key: &'a str,
    value: &'a Value,
    origin: &'a Origin,
}

impl Provider for Setting<'_> {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.to_string())
    }

    fn data(&self) -> figment::error::Result<Map<figment::Profile, Dict>> {
        let nested = figment::util::nest(self.key, self.value.clone());
        let dict = nested.into_dict().unwrap_or_default();
        Ok(figment::Profile::Default.collect(dict))
    }
}

/// Puts the origin in front of problems of settings that are not defaults.
fn located(error: ConfigError, origins: &BTreeMap<String, Origin>) -> ConfigError {
    let ConfigError::Invalid { problems } = error else { return error };
    let locate = |problem: String| {
        let origin = problem.split_once(": ").and_then(|(key, _)| origins.get(key));
        match origin {
            Some(origin) => format!("{origin}: {problem}"),
            None => problem,
        }
    };
    ConfigError::Invalid { problems: problems.into_iter().map(locate).collect() }
}

/// Where neither a setting nor the user's home says where the data is.
const NO_DATA_DIR: &str =
    "data_dir: this user has no home directory; name a data directory with --data-dir DIR (or DHTSTORE_DATA_DIR)";

fn read(path: &Path) -> Result<String, ConfigError> {
    use std::io::ErrorKind::FileTooLarge;
    let unfit = |message| ConfigError::Syntax { path: path.into(), message };
    let bytes = read_bounded(path, MAX_FILE_BYTES).map_err(|source| match source.kind() {
        FileTooLarge => unfit(format!("larger than {MAX_FILE_BYTES} bytes, so hardly a configuration file")),
        _ => ConfigError::Read { path: path.into(), source },
    })?;
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(unfit(
            "text in UTF-16, and a configuration is in UTF-8; convert it: `iconv -f UTF-16 -t UTF-8`".into(),
        ));
    }
    String::from_utf8(bytes)
        .map_err(|_| unfit("not text in UTF-8: it is damaged; restore it from a backup, or write a new one".into()))
}

/// `~/` is the home directory; what is relative is relative to `base` (empty: to the working directory).
fn absolute(text: &str, base: &Path) -> String {
    let path = match (text.strip_prefix("~/"), dirs::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => base.join(text),
    };
    std::path::absolute(&path).unwrap_or(path).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;
