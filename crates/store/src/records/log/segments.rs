//! Segments: append-only files of `log/` that hold the bodies of chunks, as frames (`log_frames`). For each chunk a row
//! in sled says where its body lies ([`Location`]). For each segment a row says how far it is indexed: up to which byte
//! its chunks have rows.
//!
//! Bodies in sled's own pages took 51 bytes of disk, 45 of memory and 175 of writing per record, and survived a power
//! cut only as far as sled did. A segment takes 37 bytes per record, is read once, and is removed when its last chunk
//! has expired.
//!
//! Each run begins segments of its own: the end of an earlier one may be torn. After a disk error a run begins another
//! segment, too. Chunks behind the indexed part of a segment are salvaged at the end of replay (`salvage`).

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
/// ... or at the size of all segments divided by this, if that is larger. Small segments give back the space of expired
/// chunks sooner, but each holds the rows of its peers again: with 200,000 peers, segments of 16 MiB took 97 bytes per
/// record instead of 39.
const SEGMENT_PART: u64 = 32;
const SUFFIX: &str = ".segment";
/// Limit of the frame of a chunk, in bytes: the codec's limit for the payload, plus the header.
const FRAME_MAX: u32 = codec::LIMIT as u32 + codec::FRAME_HEADER as u32;

/// The place of a chunk in the segments.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Location {
    /// Number of the segment.
    pub segment: u32,
    /// Where its frame begins, in bytes from the start of the segment.
    pub offset: u64,
    /// Bytes of the frame.
    pub len: u32,
}

impl Location {
    /// Encodes the location as a row.
    ///
    /// # Errors
    /// [`StoreError::Database`] if it cannot be encoded.
    pub fn to_row(self) -> Result<Vec<u8>, StoreError> {
        codec::encode_as(codec::LOCATION_VERSION, &self).map_err(|e| StoreError::Database(e.into()))
    }

    /// Decodes a row. Returns `None` for a row of schema 2 or 1, which holds the chunk itself.
    ///
    /// # Errors
    /// [`StoreError::Database`] if the row is damaged.
    pub fn of_row(row: &[u8]) -> Result<Option<Self>, StoreError> {
        if row.first() != Some(&codec::LOCATION_VERSION) {
            return Ok(None);
        }
        let decoded = codec::decode_as(codec::LOCATION_VERSION, row);
        decoded.map(Some).map_err(|e| StoreError::database("location of a chunk", e))
    }

    fn end(self) -> u64 {
        self.offset.saturating_add(self.len.into())
    }
}

/// The segments of a log, and the one that is being written.
#[derive(Debug)]
pub struct Segments {
    dir: PathBuf,
    known: BTreeMap<u32, Known>,
    writing: Option<Writing>,
    next: u32,
    /// Files that were closed with bytes that are not synced yet.
    unsynced: Vec<Arc<File>>,
    /// True if the directory has a new file and is not synced yet.
    new_name: bool,
    /// Segments without chunks. They are removed once the removal of the last rows is on disk.
    unused: Vec<u32>,
}

#[derive(Clone, Copy, Default, Debug)]
struct Known {
    /// Number of rows that point to it.
    chunks: u64,
    /// Size of the file, in bytes.
    bytes: u64,
    /// How far it is indexed: the chunks in these bytes from the start have got their rows.
    indexed: u64,
    /// Value of `indexed` in the row that is on disk.
    saved: u64,
    /// True if chunks behind `indexed` must be salvaged.
    unsalvaged: bool,
}

#[derive(Debug)]
struct Writing {
    number: u32,
    file: Arc<File>,
    /// Peers whose rows the segment holds already.
    peers: HashSet<u32>,
    dirty: bool,
}

/// For each segment by number: how many rows point to it, and how far it is indexed (`None` without such a row).
pub type SegmentRows = BTreeMap<u32, (u64, Option<u64>)>;

/// What a flush must sync, in this order: files, directory, rows.
#[derive(Debug)]
pub struct ToSync {
    files: Vec<Arc<File>>,
    new_name: bool,
    /// Number and indexed bytes of each segment whose row is out of date.
    pub ends: Vec<(u32, u64)>,
    unused: Vec<u32>,
}

/// A segment that may hold chunks without rows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unindexed {
    /// Its number.
    pub segment: u32,
    /// Path of the file.
    pub path: PathBuf,
    /// Where such chunks may begin, in bytes from the start.
    pub from: u64,
}

impl Segments {
    /// Reads which segments the directory `dir` holds. It may be missing.
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
            let known = Known { chunks, bytes, indexed, saved: indexed, unsalvaged: bytes > indexed };
            segments.known.insert(number, known);
            segments.next = segments.next.max(number.saturating_add(1));
            segments.note_unused(number);
        }
        // Rows of segments that are gone: a crash came after a segment was removed and before its row was.
        let gone = rows.iter().filter(|(number, (chunks, _))| *chunks == 0 && !segments.known.contains_key(number));
        segments.unused.extend(gone.map(|(number, _)| *number));
        segments
    }

    /// Notes that the database was reopened, and has these `rows`.
    pub fn reopened(&mut self, rows: &SegmentRows) {
        let next = self.next;
        *self = Self::open(std::mem::take(&mut self.dir), rows);
        self.next = self.next.max(next);
    }

    /// Appends the rows of those `peers` that the segment lacks, then the chunk. `row` returns the row of a peer. Does
    /// not sync.
    ///
    /// # Errors
    /// [`StoreError::Io`]. Then the segment gets no more chunks, and the next chunk begins another.
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
            return Err(StoreError::Database("cannot append to the log: no segment is open".into()));
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
        // The next try takes the next number, whatever keeps this file from being created.
        self.next = number
            .checked_add(1)
            .ok_or_else(|| StoreError::Database("cannot begin a segment of the log: all numbers are used".into()))?;
        let file = Arc::new(file.map_err(|e| io_error("create", &path, e))?);
        self.new_name = true;
        self.known.insert(number, Known::default());
        self.writing = Some(Writing { number, file, peers: HashSet::new(), dirty: false });
        Ok(())
    }

    /// Closes the segment that is being written. The next chunk begins another.
    fn close(&mut self) {
        let Some(writing) = self.writing.take() else { return };
        if writing.dirty {
            self.unsynced.push(writing.file);
        }
        self.note_unused(writing.number);
    }

    /// Stops writing the current segment after a failed write or sync. The caller then writes everything that may not
    /// be on disk to another segment.
    pub fn give_up(&mut self) {
        if let Some(writing) = self.writing.take() {
            self.note_unused(writing.number);
        }
        self.unsynced.clear();
    }

    /// Notes that a row now points to a chunk of `segment`.
    pub fn pointed(&mut self, segment: u32) {
        let known = self.known.entry(segment).or_default();
        known.chunks += 1;
    }

    /// Notes that all chunks written so far have their rows in sled. Must be called under the lock under which the
    /// chunk and its row were written. Closes a full segment: its last chunk counts only now.
    pub fn indexed(&mut self) {
        let Some(known) = self.writing.as_ref().and_then(|writing| self.known.get_mut(&writing.number)) else { return };
        known.indexed = known.bytes;
        let bytes = known.bytes;
        if bytes >= SEGMENT_BYTES && bytes >= self.bytes() / SEGMENT_PART {
            self.close();
        }
    }

    /// Notes that a row that pointed to a chunk of `segment` is gone.
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

    /// Returns the segments that may hold chunks without rows, oldest first. If the database may have `lost` rows,
    /// these are all segments from their beginnings, except the one that is being written.
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

    /// Notes that the chunks of `segment` without rows have been salvaged.
    pub fn salvaged(&mut self, segment: u32) {
        if let Some(known) = self.known.get_mut(&segment) {
            known.unsalvaged = false;
            known.indexed = known.bytes;
            self.note_unused(segment);
        }
    }

    /// Returns what must be synced now. The caller syncs it, or calls [`Segments::give_up`].
    pub fn take_unsynced(&mut self) -> ToSync {
        let mut files = std::mem::take(&mut self.unsynced);
        if let Some(writing) = &mut self.writing
            && std::mem::take(&mut writing.dirty)
        {
            files.push(writing.file.clone());
        }
        let changed = self.known.iter().filter(|(_, known)| known.indexed > known.saved);
        ToSync {
            files,
            new_name: std::mem::take(&mut self.new_name),
            ends: changed.map(|(number, known)| (*number, known.indexed)).collect(),
            unused: self.unused.clone(),
        }
    }

    /// Notes that `synced` and sled's rows are on disk. Removes the segments to which no row points, and returns
    /// their numbers.
    pub fn synced(&mut self, synced: &ToSync) -> Vec<u32> {
        for (number, indexed) in &synced.ends {
            if let Some(known) = self.known.get_mut(number) {
                known.saved = known.saved.max(*indexed);
            }
        }
        let mut removed = Vec::new();
        for number in &synced.unused {
            // It may have got a row again since, or may need salvaging.
            if self.known.get(number).is_some_and(|known| known.chunks > 0 || known.unsalvaged) {
                continue;
            }
            let path = path(&self.dir, *number);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(
                        path = %path.display(),
                        %error,
                        "cannot remove a segment of the log without chunks; the next flush tries again"
                    );
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

    /// Returns the size of all segments, in bytes.
    pub fn bytes(&self) -> u64 {
        self.known.values().map(|known| known.bytes).sum()
    }
}

impl ToSync {
    /// Syncs the files, then the directory.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn sync(&self, dir: &Path) -> Result<(), StoreError> {
        self.files.iter().try_for_each(|file| file.sync_data()).map_err(|e| io_error("sync", dir, e))?;
        if self.new_name { sync_dir(dir) } else { Ok(()) }
    }
}

/// Reads the chunk with the key `key` from `location`.
///
/// # Errors
/// [`StoreError::Io`]; [`StoreError::Database`] if the frame there is damaged or is not this chunk.
pub fn read(dir: &Path, key: u64, location: Location) -> Result<Vec<u8>, StoreError> {
    let path = path(dir, location.segment);
    let damaged = |why: String| StoreError::Database(format!("{}: {why}", path.display()).into());
    if location.len > FRAME_MAX {
        return Err(damaged(format!("the row of a chunk claims a frame of {} bytes, over the limit", location.len)));
    }
    let mut bytes = vec![0; location.len as usize];
    let file = File::open(&path).map_err(|e| io_error("open", &path, e))?;
    file.read_exact_at(&mut bytes, location.offset).map_err(|e| io_error("read", &path, e))?;
    match codec::read_frame(&mut &bytes[..]) {
        Ok(Some(LogFrame::Chunk { key: found, chunk })) if found == key => Ok(chunk),
        Ok(_) => Err(damaged(format!("the frame at {} is another one", location.offset))),
        Err(error) => Err(damaged(error.to_string())),
    }
}

/// Returns true if the outcome of [`read`] shows that the chunk is not there. False after a disk error, which shows
/// nothing.
pub fn is_absent(outcome: &Result<Vec<u8>, StoreError>) -> bool {
    match outcome {
        Ok(_) => false,
        Err(StoreError::Io { source, .. }) => {
            matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof)
        }
        Err(_) => true,
    }
}

/// Returns true if the chunk at `location` may never have reached the disk: it lies behind the indexed part.
pub fn may_be_unwritten(location: Location, indexed: Option<u64>) -> bool {
    indexed.is_none_or(|indexed| location.end() > indexed)
}

/// Returns the path of a segment.
pub fn path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:08x}{SUFFIX}"))
}

/// Lists the segments of a directory: size by number. Empty if the directory cannot be read.
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
