//! Exports and journals: own CIDs and routing tables outside of sled, so that damage to `node/` cannot destroy them.
//!
//! A change is appended to `own-<generation>.journal`, and fsynced, before it is acknowledged.
//! `node-<generation>-<time>.export` holds the whole state as it was before the journals of the same and later
//! generations.
//! Both are frames with a length and a CRC-32 each. Three exports are kept, with the journals that the oldest of them
//! needs.

use super::own::{OwnRow, Position};
use crate::{
    StoreError,
    clock::UnixTime,
    codec::{self, CodecError},
    filesystem::{create_dir, io_error, sync_dir},
    frame_writer::{FrameWriter, frame},
    frames::{Frames, Part, open},
    kad::Dht,
    records::entry::position,
    routing::{SavedPeer, SavedRow},
};
use bincode::{Decode, Encode};
use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// Number of exports kept: own CIDs survive even if two in a row are damaged.
const KEEP: usize = 3;
/// Number of CIDs in a frame: a frame of the longest CIDs is still below the limit of the codec.
const PER_FRAME: usize = 256;

/// A frame of an export or journal.
#[derive(Debug, Encode, Decode)]
enum ExportFrame {
    Own(Vec<OwnRow>),
    /// Multihashes.
    Remove(Vec<Vec<u8>>),
    Routing {
        dht: String,
        peers: Vec<SavedRow>,
    },
    /// The last frame of an export, with the number of its CIDs.
    End {
        own: u64,
    },
}

/// A change to the own CIDs.
#[derive(Debug)]
pub enum Change<'a> {
    /// Adds or replaces rows.
    Put(&'a [OwnRow]),
    /// Removes rows, by multihash.
    Take(&'a [Vec<u8>]),
}

/// The directory, and the journal to which changes are appended.
#[derive(Debug)]
pub struct Exports {
    dir: PathBuf,
    generation: u64,
    journal: Option<File>,
    journal_bytes: u64,
    export_bytes: Option<u64>,
}

/// What the files hold.
#[derive(Debug, Default)]
pub struct Exported {
    /// Own CIDs of the newest export that can be read, if it was asked for.
    pub own: BTreeMap<Position, OwnRow>,
    /// The last change of each CID in the journals since the newest export: its row, or `None` if it was removed.
    pub journal: BTreeMap<Position, Option<OwnRow>>,
    /// Routing tables of the export.
    pub routing: BTreeMap<String, Vec<SavedPeer>>,
    /// Notes on what could not be read.
    pub notes: Vec<String>,
}

impl Exports {
    /// Reads the names of the files, and creates none. New changes go to a new journal, never behind a torn frame.
    pub fn open(dir: PathBuf) -> Self {
        let files = Files::list(&dir);
        let newest = files.exports.keys().chain(files.journals.keys()).max().copied().unwrap_or(0);
        let export = files.exports.values().next_back();
        let export_bytes = export.map(|path| fs::metadata(path).map_or(0, |m| m.len()));
        Self { dir, generation: newest + 1, journal: None, journal_bytes: 0, export_bytes }
    }

    /// Appends changes to the journal and fsyncs it. After an error none of them counts.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn append(&mut self, change: &Change<'_>) -> Result<(), StoreError> {
        let mut bytes = Vec::new();
        match change {
            Change::Put(rows) => {
                for rows in rows.chunks(PER_FRAME) {
                    bytes.extend(frame(&ExportFrame::Own(rows.to_vec()))?);
                }
            }
            Change::Take(multihashes) => {
                for multihashes in multihashes.chunks(PER_FRAME) {
                    bytes.extend(frame(&ExportFrame::Remove(multihashes.to_vec()))?);
                }
            }
        }
        let path = self.journal_path();
        let outcome = self.journal_file(&path).and_then(|file| {
            file.write_all(&bytes)?;
            file.sync_data()
        });
        if let Err(e) = outcome {
            // On an error, the journal is cut here, so that no frame follows half a frame.
            let before = self.journal_bytes;
            let cut = self.journal.take().is_some_and(|file| file.set_len(before).is_ok());
            if !cut {
                self.generation += 1;
                self.journal_bytes = 0;
            }
            return Err(io_error("write", &path, e));
        }
        self.journal_bytes += bytes.len() as u64;
        Ok(())
    }

    /// Returns the bytes in the journal since the last export.
    pub fn journal_bytes(&self) -> u64 {
        self.journal_bytes
    }

    /// Returns the size of the newest export, if there is one.
    pub fn export_bytes(&self) -> Option<u64> {
        self.export_bytes
    }

    /// Writes an export of everything, then begins a new journal and removes files that are no longer needed. Returns
    /// the generation of the export.
    ///
    /// # Errors
    /// [`StoreError::Io`]. Changes are then still appended to the current journal.
    pub fn export<'a>(
        &mut self,
        now: UnixTime,
        own: impl Iterator<Item = &'a OwnRow>,
        routing: &[(Dht, Vec<SavedPeer>)],
    ) -> Result<u64, StoreError> {
        let next = self.generation + 1;
        let mut file = FrameWriter::create(&self.dir, "node.unfinished")?;
        write_export(&mut file, own, routing)?;
        let (_, bytes) = file.finish(&format!("node-{next:010}-{}.export", now.0))?;
        self.generation = next;
        self.journal = None;
        self.journal_bytes = 0;
        self.export_bytes = Some(bytes);
        self.remove_old();
        Ok(next)
    }

    fn remove_old(&self) {
        let files = Files::list(&self.dir);
        let oldest = files.exports.keys().rev().nth(KEEP - 1).copied().unwrap_or(0);
        let old = files.exports.range(..oldest).chain(files.journals.range(..oldest));
        for (_, path) in old {
            if let Err(error) = fs::remove_file(path) {
                tracing::warn!(path = %path.display(), %error, "cannot remove an old export; the next export tries \
                    again");
            }
        }
    }

    fn journal_path(&self) -> PathBuf {
        self.dir.join(format!("own-{:010}.journal", self.generation))
    }

    fn journal_file(&mut self, path: &Path) -> io::Result<&mut File> {
        if self.journal.is_none() {
            create_dir(&self.dir).map_err(io::Error::other)?;
            let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
            sync_dir(&self.dir).map_err(io::Error::other)?;
            self.journal_bytes = file.metadata()?.len();
            self.journal = Some(file);
        }
        self.journal.as_mut().ok_or_else(|| io::Error::other("no journal"))
    }
}

/// Returns the generation of the newest export; 0 if there is none.
pub fn newest(dir: &Path) -> u64 {
    Files::list(dir).exports.keys().next_back().copied().unwrap_or(0)
}

/// Reads the journals since the newest export. With `with_export`, reads the newest export that is whole, and the
/// journals since that one.
pub fn read(dir: &Path, with_export: bool) -> Exported {
    let files = Files::list(dir);
    let mut exported = Exported::default();
    let mut since = files.exports.keys().next_back().copied().unwrap_or(0);
    if with_export {
        since = 0;
        for (generation, path) in files.exports.iter().rev() {
            match open(path).and_then(read_export) {
                Ok((own, routing)) => {
                    (exported.own, exported.routing) = (own, routing);
                    since = *generation;
                    break;
                }
                Err(error) => exported.notes.push(format!("{} cannot be read: {error}", path.display())),
            }
        }
    }
    for path in files.journals.range(since..).map(|(_, path)| path) {
        let (found, unread) = (read_journal(path, &mut exported.journal), path.display());
        exported.notes.extend(match found {
            Ok(Journal { damage: Some(error), .. }) => {
                Some(format!("{unread} is damaged: {error}; the rest of it was read"))
            }
            Ok(Journal { cut: Some(error), .. }) => {
                Some(format!("{unread} ends with a change that is incomplete: {error}"))
            }
            Ok(_) => None,
            Err(error) => Some(format!("{unread} cannot be read: {error}")),
        });
    }
    exported
}

/// Own CIDs and routing tables.
pub(crate) type Export = (BTreeMap<Position, OwnRow>, BTreeMap<String, Vec<SavedPeer>>);

pub(crate) fn read_export(mut file: impl Read) -> Result<Export, CodecError> {
    let mut own = BTreeMap::new();
    let mut routing: BTreeMap<String, Vec<SavedPeer>> = BTreeMap::new();
    while let Some(item) = codec::read_frame(&mut file)? {
        match item {
            ExportFrame::Own(rows) => own.extend(rows.into_iter().filter_map(|row| Some((row.read()?.1, row)))),
            ExportFrame::Routing { dht, peers } => {
                routing.entry(dht).or_default().extend(peers.into_iter().filter_map(SavedRow::into_peer));
            }
            ExportFrame::Remove(_) => return Err(CodecError::Malformed("a removal in an export".into())),
            ExportFrame::End { own: promised } if promised == own.len() as u64 => return Ok((own, routing)),
            ExportFrame::End { own: promised } => {
                return Err(CodecError::Malformed(format!("{} own CIDs instead of {promised}", own.len()).into()));
            }
        }
    }
    Err(CodecError::Malformed("its end is missing".into()))
}

/// How much of a journal can be read.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    /// The error for a frame that was acknowledged and cannot be read.
    pub damage: Option<CodecError>,
    /// The error for the last frame, if a kill cut it off. Its change was never acknowledged.
    pub cut: Option<CodecError>,
}

/// Reads all frames that can be read, also those behind a damaged one.
///
/// # Errors
/// [`CodecError::Io`].
pub(crate) fn read_journal(
    path: &Path,
    journal: &mut BTreeMap<Position, Option<OwnRow>>,
) -> Result<Journal, CodecError> {
    let mut found = Journal::default();
    // The content comes from this node and not from strangers, so that a single intact frame behind damage counts.
    for part in Frames::open(path, 0, 0)? {
        match part? {
            Part::Frame { item, .. } => enter(item, journal),
            Part::Damage { is_cut: true, error, .. } => found.cut = Some(error),
            Part::Damage { error, .. } => found.damage = found.damage.or(Some(error)),
        }
    }
    Ok(found)
}

fn enter(item: ExportFrame, journal: &mut BTreeMap<Position, Option<OwnRow>>) {
    match item {
        ExportFrame::Own(rows) => journal.extend(rows.into_iter().filter_map(|row| Some((row.read()?.1, Some(row))))),
        ExportFrame::Remove(multihashes) => {
            journal.extend(multihashes.iter().map(|multihash| (position(multihash), None)));
        }
        ExportFrame::Routing { .. } | ExportFrame::End { .. } => {}
    }
}

/// Result of reading an export or journal.
#[derive(Debug)]
pub(crate) enum Verified {
    /// All frames can be read. Number of own CIDs, or of changes.
    Whole(usize),
    /// All frames can be read, except a last change that a kill cut off.
    Cut(CodecError),
    /// A change that was acknowledged cannot be read.
    Damaged(CodecError),
}

/// Reads every frame of an export or journal. `None` for other files.
///
/// # Errors
/// [`CodecError::Io`].
pub(crate) fn verify(path: &Path) -> Option<Result<Verified, CodecError>> {
    match path.extension()?.to_str()? {
        "export" if path.file_name()?.to_str()?.starts_with("node-") => Some(match open(path).and_then(read_export) {
            Ok((own, _)) => Ok(Verified::Whole(own.len())),
            Err(error @ CodecError::Io(_)) => Err(error),
            Err(error) => Ok(Verified::Damaged(error)),
        }),
        "journal" if path.file_name()?.to_str()?.starts_with("own-") => {
            let mut changes = BTreeMap::new();
            Some(read_journal(path, &mut changes).map(|found| match found {
                Journal { damage: Some(error), .. } => Verified::Damaged(error),
                Journal { cut: Some(error), .. } => Verified::Cut(error),
                _ => Verified::Whole(changes.len()),
            }))
        }
        _ => None,
    }
}

/// Writes all frames; the caller finishes the file.
fn write_export<'a>(
    file: &mut FrameWriter,
    own: impl Iterator<Item = &'a OwnRow>,
    routing: &[(Dht, Vec<SavedPeer>)],
) -> Result<(), StoreError> {
    let mut count = 0;
    let mut rows = Vec::with_capacity(PER_FRAME);
    for row in own {
        rows.push(row.clone());
        count += 1;
        if rows.len() == PER_FRAME {
            file.put(&ExportFrame::Own(std::mem::take(&mut rows)))?;
        }
    }
    file.put(&ExportFrame::Own(rows))?;
    for (dht, peers) in routing {
        for peers in crate::routing::rows(peers) {
            file.put(&ExportFrame::Routing { dht: dht.name().to_owned(), peers })?;
        }
    }
    file.put(&ExportFrame::End { own: count })
}

/// The files by generation.
#[derive(Debug, Default)]
struct Files {
    exports: BTreeMap<u64, PathBuf>,
    journals: BTreeMap<u64, PathBuf>,
}

impl Files {
    fn list(dir: &Path) -> Self {
        let mut files = Self::default();
        let Ok(entries) = fs::read_dir(dir) else { return files };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let number = |text: &str| text.parse::<u64>().ok();
            if let Some(rest) = name.strip_prefix("node-").and_then(|n| n.strip_suffix(".export")) {
                if let Some(generation) = rest.split('-').next().and_then(number) {
                    files.exports.insert(generation, entry.path());
                }
            } else if let Some(generation) =
                name.strip_prefix("own-").and_then(|n| n.strip_suffix(".journal")).and_then(number)
            {
                files.journals.insert(generation, entry.path());
            }
        }
        files
    }
}
