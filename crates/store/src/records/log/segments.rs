//! The bodies of chunks, in files that are only ever appended to: segments of `log/`, written as `frames` tells. sled
//! keeps where each chunk lies ([`Location`]), and how far each segment is known to it.
//!
//! Bodies in sled's own pages took 51 bytes of disk and 45 of memory per record, 175 bytes of writing, and outlasted a
//! power cut only as far as sled did; a segment takes 37, is read once, and is removed when its last chunk has expired.
//!
//! A run never appends to a segment of an earlier one, whose end may be torn, nor to one that the disk has failed
//! under. What stands in a segment behind what sled knows of it is salvaged at the end of replay (`salvage`).

use crate::{
    StoreError, codec,
    filesystem::{create_dir, io_error, sync_dir},
    frame_writer::frame,
    records::log_frames::{self, LogFrame},
};
use bincode::{Decode, Encode};
use std::{
    collections::{BTreeMap, HashSet},
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

/// A segment is closed at this size, in bytes: some 450,000 records ...
const SEGMENT_BYTES: u64 = 16 << 20;
/// ... or at this part of all of them, if that is more. The space of what has expired is given back by whole segments,
/// and each names its peers anew: with 200,000 of them, segments of 16 MiB took 97 bytes per record in place of 39.
const SEGMENT_PART: u64 = 32;
const SUFFIX: &str = ".segment";
/// No frame of a chunk is longer: its payload fits the codec's limit.
const FRAME_MAX: u32 = codec::LIMIT as u32 + codec::FRAME_HEADER as u32;

/// Where a chunk lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Location {
    /// Number of the segment.
    pub segment: u32,
    /// Where its frame begins there.
    pub offset: u64,
    /// Bytes of the frame.
    pub len: u32,
}

impl Location {
    /// As a row of sled.
    ///
    /// # Errors
    /// [`StoreError::Database`] if it cannot be encoded.
    pub fn to_row(self) -> Result<Vec<u8>, StoreError> {
        codec::encode_as(codec::LOCATION_VERSION, &self).map_err(|e| StoreError::Database(e.into()))
    }

    /// `None` of a row that holds the chunk itself, as those of schema 2 and before do.
    ///
    /// # Errors
    /// [`StoreError::Database`]: a damaged row.
    pub fn of_row(row: &[u8]) -> Result<Option<Self>, StoreError> {
        if row.first() != Some(&codec::LOCATION_VERSION) {
            return Ok(None);
        }
        let decoded = codec::decode_as(codec::LOCATION_VERSION, row);
        decoded.map(Some).map_err(|e| StoreError::database("place of a chunk", e))
    }

    fn end(self) -> u64 {
        self.offset.saturating_add(self.len.into())
    }
}

/// All segments of a log, and the one that is being written.
#[derive(Debug)]
pub struct Segments {
    dir: PathBuf,
    known: BTreeMap<u32, Known>,
    writing: Option<Writing>,
    next: u32,
    /// Closed since they were last synced.
    unsynced: Vec<Arc<File>>,
    /// A name of the directory is not synced.
    new_name: bool,
    /// No chunk is left in them: they are removed once sled's rows about that are on disk.
    unused: Vec<u32>,
}

#[derive(Clone, Copy, Default, Debug)]
struct Known {
    /// Chunks in it that rows point to.
    chunks: u64,
    /// Bytes of the file.
    bytes: u64,
    /// Bytes from the start whose chunks have had their rows: as sled is told.
    indexed: u64,
    /// ... as it was told.
    told: u64,
    /// Something behind `indexed` is to be salvaged.
    unsalvaged: bool,
}

#[derive(Debug)]
struct Writing {
    number: u32,
    file: Arc<File>,
    /// Peers whose rows are in it.
    peers: HashSet<u32>,
    dirty: bool,
}

/// What sled knows of each segment, by its number: how many rows point to it, and how far it is indexed (`None`: not at
/// all).
pub type SegmentRows = BTreeMap<u32, (u64, Option<u64>)>;

/// What a flush has to sync, in this order: files, directory, rows.
#[derive(Debug)]
pub struct ToSync {
    files: Vec<Arc<File>>,
    new_name: bool,
    /// Number and indexed bytes of segments of which sled does not know them yet.
    pub ends: Vec<(u32, u64)>,
    unused: Vec<u32>,
}

/// A segment with something that sled does not know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unindexed {
    /// Its number.
    pub segment: u32,
    /// Where it is.
    pub path: PathBuf,
    /// From where.
    pub from: u64,
}

impl Segments {
    /// Those of `dir`, which need not exist.
    pub fn open(dir: PathBuf, rows: &SegmentRows) -> Self {
        let mut segments = Self {
            known: BTreeMap::new(),
            writing: None,
            next: rows.keys().next_back().map_or(0, |last| last.saturating_add(1)),
            unsynced: Vec::new(),
            new_name: false,
            unused: Vec::new(),
            dir,
        };
        for (number, bytes) in list(&segments.dir) {
            let (chunks, indexed) = rows.get(&number).copied().unwrap_or_default();
            let indexed = indexed.unwrap_or(0);
            let known = Known { chunks, bytes, indexed, told: indexed, unsalvaged: bytes > indexed };
            segments.known.insert(number, known);
            segments.next = segments.next.max(number.saturating_add(1));
            segments.note_unused(number);
        }
        // A crash came between the removal of a segment and that of its row.
        let gone = rows.iter().filter(|(number, (chunks, _))| *chunks == 0 && !segments.known.contains_key(number));
        segments.unused.extend(gone.map(|(number, _)| *number));
        segments
    }

    /// sled was opened anew, and knows this.
    pub fn reopened(&mut self, rows: &SegmentRows) {
        let next = self.next;
        *self = Self::open(std::mem::take(&mut self.dir), rows);
        self.next = self.next.max(next);
    }

    /// Appends a chunk behind the rows of its peers that this segment lacks; `row` finds them. Not synced.
    ///
    /// # Errors
    /// [`StoreError::Io`]: then the segment is given up, and the next chunk begins another.
    pub fn append(
        &mut self,
        key: u64,
        chunk: &[u8],
        peers: impl Iterator<Item = u32>,
        mut row: impl FnMut(u32) -> Option<Vec<u8>>,
    ) -> Result<Location, StoreError> {
        if self.writing.is_none() {
            self.begin()?;
        }
        let Some(writing) = &mut self.writing else {
            return Err(StoreError::Database("no segment of the log is open".into()));
        };
        let known = self.known.entry(writing.number).or_default();
        let mut bytes = Vec::with_capacity(chunk.len() + 64);
        if known.bytes == 0 {
            bytes = log_frames::begin(0)?;
        }
        for id in peers {
            if writing.peers.insert(id)
                && let Some(row) = row(id)
            {
                bytes.extend_from_slice(&frame(&LogFrame::Peer { id, row })?);
            }
        }
        let chunk = frame(&LogFrame::Chunk { key, chunk: chunk.to_vec() })?;
        let offset = known.bytes + bytes.len() as u64;
        bytes.extend_from_slice(&chunk);
        let written = (&*writing.file).write_all(&bytes);
        let number = writing.number;
        if let Err(error) = written {
            let error = io_error("write", &path(&self.dir, number), error);
            self.give_up();
            return Err(error);
        }
        writing.dirty = true;
        known.bytes += bytes.len() as u64;
        let len = u32::try_from(chunk.len()).unwrap_or(u32::MAX);
        Ok(Location { segment: number, offset, len })
    }

    fn begin(&mut self) -> Result<(), StoreError> {
        create_dir(&self.dir)?;
        let number = self.next;
        let path = path(&self.dir, number);
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path);
        // Whatever stands in the way: it is passed over.
        self.next = number.checked_add(1).ok_or_else(|| StoreError::Database("no more segments of the log".into()))?;
        let file = Arc::new(file.map_err(|e| io_error("create", &path, e))?);
        self.new_name = true;
        self.known.insert(number, Known::default());
        self.writing = Some(Writing { number, file, peers: HashSet::new(), dirty: false });
        Ok(())
    }

    /// The next chunk begins another segment.
    fn close(&mut self) {
        let Some(writing) = self.writing.take() else { return };
        if writing.dirty {
            self.unsynced.push(writing.file);
        }
        self.note_unused(writing.number);
    }

    /// The disk has failed under the segment that is written, or under the sync of one: what is not known to be on disk
    /// is written again, to another.
    pub fn give_up(&mut self) {
        if let Some(writing) = self.writing.take() {
            self.note_unused(writing.number);
        }
        self.unsynced.clear();
    }

    /// A row points to a chunk of it now.
    pub fn pointed(&mut self, segment: u32) {
        let known = self.known.entry(segment).or_default();
        known.chunks += 1;
    }

    /// All rows of what was written so far are in sled: to be called under the lock under which both were done. A segment
    /// that is full is closed now, and not before its last chunk counts.
    pub fn indexed(&mut self) {
        let Some(known) = self.writing.as_ref().and_then(|writing| self.known.get_mut(&writing.number)) else { return };
        known.indexed = known.bytes;
        let bytes = known.bytes;
        if bytes >= SEGMENT_BYTES && bytes >= self.bytes() / SEGMENT_PART {
            self.close();
        }
    }

    /// A row points to a chunk of it no more.
    pub fn unpointed(&mut self, segment: u32) {
        if let Some(known) = self.known.get_mut(&segment) {
            known.chunks = known.chunks.saturating_sub(1);
            self.note_unused(segment);
        }
    }

    fn note_unused(&mut self, number: u32) {
        let is_written = self.writing.as_ref().is_some_and(|writing| writing.number == number);
        let unused = self.known.get(&number).is_some_and(|known| known.chunks == 0 && !known.unsalvaged);
        if unused && !is_written && !self.unused.contains(&number) {
            self.unused.push(number);
        }
    }

    /// Segments with something that sled does not know, oldest first; all but the one that is written, from their
    /// beginnings, if it may have `lost` rows that it had.
    pub fn unindexed(&mut self, lost: bool) -> Vec<Unindexed> {
        let written = self.writing.as_ref().map(|writing| writing.number);
        if lost {
            self.unused.clear();
            for (number, known) in &mut self.known {
                known.unsalvaged |= Some(*number) != written;
            }
        }
        let unsalvaged = self.known.iter().filter(|(_, known)| known.unsalvaged);
        let found = |(segment, known): (&u32, &Known)| Unindexed {
            segment: *segment,
            path: path(&self.dir, *segment),
            from: if lost { 0 } else { known.indexed },
        };
        unsalvaged.map(found).collect()
    }

    /// What sled did not know of it has been salvaged.
    pub fn salvaged(&mut self, segment: u32) {
        if let Some(known) = self.known.get_mut(&segment) {
            known.unsalvaged = false;
            known.indexed = known.bytes;
            self.note_unused(segment);
        }
    }

    /// What is to be synced now.
    pub fn take_unsynced(&mut self) -> ToSync {
        let mut files = std::mem::take(&mut self.unsynced);
        if let Some(writing) = &mut self.writing
            && std::mem::take(&mut writing.dirty)
        {
            files.push(writing.file.clone());
        }
        let told = self.known.iter().filter(|(_, known)| known.indexed > known.told);
        ToSync {
            files,
            new_name: std::mem::take(&mut self.new_name),
            ends: told.map(|(number, known)| (*number, known.indexed)).collect(),
            unused: self.unused.clone(),
        }
    }

    /// It is on disk, sled's rows included: what nothing points to any more is removed. Numbers of the removed.
    pub fn synced(&mut self, synced: &ToSync) -> Vec<u32> {
        for (number, indexed) in &synced.ends {
            if let Some(known) = self.known.get_mut(number) {
                known.told = known.told.max(*indexed);
            }
        }
        let mut removed = Vec::new();
        for number in &synced.unused {
            // Unless something of it counts again.
            if self.known.get(number).is_some_and(|known| known.chunks > 0 || known.unsalvaged) {
                continue;
            }
            let path = path(&self.dir, *number);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(path = %path.display(), %error, "a segment of the log cannot be removed yet");
                }
                _ => {
                    self.known.remove(number);
                    removed.push(*number);
                }
            }
        }
        let known = &self.known;
        self.unused.retain(|number| known.get(number).is_some_and(|known| known.chunks == 0 && !known.unsalvaged));
        removed
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.known.values().map(|known| known.bytes).sum()
    }
}

impl ToSync {
    /// Brings files and names to disk.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn sync(&self, dir: &Path) -> Result<(), StoreError> {
        self.files.iter().try_for_each(|file| file.sync_data()).map_err(|e| io_error("sync", dir, e))?;
        if self.new_name { sync_dir(dir) } else { Ok(()) }
    }
}

/// The chunk of `key` that lies at `location`.
///
/// # Errors
/// [`StoreError::Io`]; [`StoreError::Database`] if another thing lies there.
pub fn read(dir: &Path, key: u64, location: Location) -> Result<Vec<u8>, StoreError> {
    let path = path(dir, location.segment);
    let damaged = |why: String| StoreError::Database(format!("{}: {why}", path.display()).into());
    if location.len > FRAME_MAX {
        return Err(damaged(format!("a frame of {} bytes", location.len)));
    }
    let mut bytes = vec![0; location.len as usize];
    let file = File::open(&path).map_err(|e| io_error("open", &path, e))?;
    file.read_exact_at(&mut bytes, location.offset).map_err(|e| io_error("read", &path, e))?;
    match codec::read_frame(&mut &bytes[..]) {
        Ok(Some(LogFrame::Chunk { key: found, chunk })) if found == key => Ok(chunk),
        Ok(_) => Err(damaged(format!("another frame lies at {}", location.offset))),
        Err(error) => Err(damaged(error.to_string())),
    }
}

/// Whether the outcome of [`read`] says that the chunk is not there, and not that the disk does not tell.
pub fn is_absent(outcome: &Result<Vec<u8>, StoreError>) -> bool {
    match outcome {
        Ok(_) => false,
        Err(StoreError::Io { source, .. }) => {
            matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof)
        }
        Err(_) => true,
    }
}

/// Whether a row may point to something that was never on disk: it lies behind what sled knows to be.
pub fn may_be_unwritten(location: Location, indexed: Option<u64>) -> bool {
    indexed.is_none_or(|indexed| location.end() > indexed)
}

/// Where a segment lies.
pub fn path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:08x}{SUFFIX}"))
}

/// Numbers and sizes of the segments in a directory; none if it cannot be read.
pub fn list(dir: &Path) -> BTreeMap<u32, u64> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let number = |name: &str| u32::from_str_radix(name.strip_suffix(SUFFIX).filter(|n| n.len() == 8)?, 16).ok();
    entries
        .filter_map(|entry| {
            let bytes = entry.metadata().ok().filter(fs::Metadata::is_file)?.len();
            Some((number(entry.file_name().to_str()?)?, bytes))
        })
        .collect()
}

#[cfg(test)]
mod tests;
