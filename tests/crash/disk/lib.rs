//! A disk that fails on command. The test (`layer.rs`) compiles this file to a shared library, and gives it to the real
//! binary by LD_PRELOAD; it is not a module of the test. It stands between the process and libc, and sees every call
//! that changes something below one directory. At the n-th call of a kind it
//! - **kills** the process, before, after or in the middle of the call;
//! - lets the **power** fail: undoes what no fsync has made durable, then kills;
//! - or answers with an **error**, for some calls or for as long as a file is there.
//!
//! Why this tests as much as faults below the file system would: sled 0.34 and this crate change files only by write,
//! pwrite, ftruncate, rename, unlink and creation, and rely only on fsync and fdatasync. A power cut loses any subset
//! of the sectors written since the last fsync of their file, and any later part of the changes to names since the last
//! fsync of their directory (journaling file systems keep the order of such changes). The layer draws such a loss at
//! random, and reads the guarantees strictly: `sync_file_range`, which sled's flush uses, makes **nothing** durable,
//! since it writes neither sizes nor the disk's cache. An fsync is not passed on: the test does not ask whether the
//! machine's own disk keeps its promises, and without it 1,000 kills take a third of the time.
//!
//! Limits of the layer: it does not see changes by mmap, O_DIRECT or io_uring (none are made here), nor calls that
//! bypass libc (rustix: the rename of a new identity.key, which happens once and is followed by an fsync of its
//! directory). It does not damage metadata of the file system. Data that a killed process had not synced counts as
//! synced once the next process runs.
//!
//! Environment: `DISK_DIR` is the directory. `DISK_SHADOW` is a directory next to it, for names that may have to come
//! back. `DISK_PLAN` is
//! `on=<kinds>;path=<part>|<part>;thread=<prefix>;nth=<n>;when=before|after|half;do=kill|power|error:<errno>:<calls>`.
//! Kinds are create, write, fsync, range, truncate, rename, unlink, read, and thread. The kind thread matches when a
//! thread takes the name `path`; the process then ends within 2 ms. With 0 `<calls>` the errors do not end. Calls count
//! only while the file `DISK_ARMED` exists, if that is set. `DISK_COUNT` is a file that gets the number of matching
//! calls. `DISK_SEED` is the seed. `DISK_CLOCK` is the number of seconds by which the wall clock is ahead (or behind);
//! it works without the others.

#[macro_use]
mod libc;
mod calls;
mod loss;

use libc::*;
use std::{
    cell::Cell,
    collections::{BTreeMap, HashMap},
    ffi::{CStr, CString, c_int},
    fs::File,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// Maximum descriptor that is watched; the binary opens its database files among the first hundred.
const FDS: usize = 65_536;

#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    Before,
    After,
    Half,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Do {
    Kill,
    Power,
    /// The errno, and the number of calls that fail with it.
    Error(c_int, u64),
}

struct Plan {
    kinds: Vec<String>,
    paths: Vec<String>,
    thread: String,
    nth: u64,
    when: When,
    act: Do,
}

impl Plan {
    fn parse(text: &str) -> Self {
        let part = |name: &str| {
            let found = text.split(';').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
            found.unwrap_or_default().to_owned()
        };
        let list = |text: String, by: char| text.split(by).map(str::to_owned).collect::<Vec<_>>();
        let act = match part("do").split(':').collect::<Vec<_>>()[..] {
            ["power"] => Do::Power,
            ["error", errno, calls] => Do::Error(errno.parse().unwrap(), calls.parse().unwrap()),
            _ => Do::Kill,
        };
        let when = match part("when").as_str() {
            "after" => When::After,
            "half" => When::Half,
            _ => When::Before,
        };
        let (kinds, paths) = (list(part("on"), ','), list(part("path"), '|'));
        Self { kinds, paths, thread: part("thread"), nth: part("nth").parse().unwrap_or(u64::MAX), when, act }
    }
}

/// A change to a file that no fsync has made durable.
enum Change {
    Write { at: u64, old: Vec<u8>, new: Vec<u8>, len: u64 },
    Truncate { from: u64, to: u64, tail: Vec<u8> },
}

/// A change to the name of a file. `Disk` keeps these changes in order, each with the directory whose fsync makes it
/// durable.
enum Name {
    Created { path: CString },
    Renamed { from: CString, to: CString, replaced: Option<CString> },
    Unlinked { path: CString, kept: CString },
}

struct Open {
    ino: u64,
    path: CString,
    append: bool,
}

#[derive(Default)]
struct Changed {
    path: CString,
    changes: Vec<Change>,
}

struct Disk {
    dir: String,
    shadow: String,
    armed: Option<CString>,
    count: Option<File>,
    plan: Plan,
    open: HashMap<c_int, Open>,
    files: BTreeMap<u64, Changed>,
    names: Vec<(CString, Name)>,
    seen: u64,
    kept: u64,
    random: u64,
}

/// What the layer does with a call.
enum Verdict {
    Pass,
    Error(c_int),
    Die(When),
}

static DISK: OnceLock<Option<Mutex<Disk>>> = OnceLock::new();
static WATCHED: [AtomicBool; FDS] = [const { AtomicBool::new(false) }; FDS];

thread_local! {
    /// True during the layer's own calls, which go straight to libc.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

struct Held(MutexGuard<'static, Disk>);

impl Drop for Held {
    fn drop(&mut self) {
        INSIDE.with(|inside| inside.set(false));
    }
}

/// Locks the layer, so that the calls it watches happen one after the other. `None` for its own calls, and without a
/// plan.
fn disk() -> Option<Held> {
    if INSIDE.with(|inside| inside.replace(true)) {
        return None;
    }
    let disk = DISK.get_or_init(|| Disk::new().map(Mutex::new)).as_ref();
    let held = disk.map(|disk| Held(disk.lock().unwrap_or_else(PoisonError::into_inner)));
    if held.is_none() {
        INSIDE.with(|inside| inside.set(false));
    }
    held
}

/// Locks the layer if the descriptor is of a file below the directory.
fn disk_of(fd: c_int) -> Option<Held> {
    let watched = usize::try_from(fd).ok().and_then(|fd| WATCHED.get(fd));
    watched.filter(|watched| watched.load(Ordering::Acquire)).and_then(|_| disk())
}

impl Disk {
    fn new() -> Option<Self> {
        let var = |name: &str| std::env::var(name).ok();
        let count = var("DISK_COUNT").map(|path| File::create(path).unwrap());
        let seed: u64 = var("DISK_SEED").and_then(|seed| seed.parse().ok()).unwrap_or(1);
        Some(Self {
            dir: var("DISK_DIR")?,
            shadow: var("DISK_SHADOW")?,
            plan: Plan::parse(&var("DISK_PLAN")?),
            armed: var("DISK_ARMED").map(|path| CString::new(path).unwrap()),
            count,
            open: HashMap::new(),
            files: BTreeMap::new(),
            names: Vec::new(),
            seen: 0,
            kept: 0,
            random: seed | 1,
        })
    }

    /// Draws a number by xorshift.
    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % below.max(1)
    }

    /// Returns the path relative to the directory.
    fn below<'p>(&self, path: &'p CStr) -> Option<&'p str> {
        path.to_str().ok()?.strip_prefix(&self.dir)?.strip_prefix('/')
    }

    fn tracks(&self) -> bool {
        self.plan.act == Do::Power
    }

    fn judge(&mut self, kind: &str, path: &CStr) -> Verdict {
        let plan = &self.plan;
        let Some(name) = self.below(path) else { return Verdict::Pass };
        let any = |list: &[String]| list.iter().all(String::is_empty);
        let matches = (any(&plan.kinds) && kind != "read" && kind != "thread" || plan.kinds.iter().any(|k| k == kind))
            && (any(&plan.paths) || plan.paths.iter().any(|part| name.contains(part)))
            && thread_name().starts_with(&plan.thread)
            && self.armed.as_ref().is_none_or(|file| unsafe { access(file.as_ptr(), 0) } == 0);
        if !matches {
            return Verdict::Pass;
        }
        self.seen += 1;
        if let Some(count) = &self.count {
            use std::os::unix::fs::FileExt;
            let _ = count.write_all_at(self.seen.to_string().as_bytes(), 0);
        }
        match self.plan.act {
            Do::Error(errno, calls) => {
                let end = if calls == 0 { u64::MAX } else { self.plan.nth.saturating_add(calls) };
                match (self.plan.nth..end).contains(&self.seen) {
                    true => Verdict::Error(errno),
                    false => Verdict::Pass,
                }
            }
            _ if self.seen == self.plan.nth => Verdict::Die(self.plan.when),
            _ => Verdict::Pass,
        }
    }

    /// Makes a call that is done as a whole or not at all.
    fn whole(&mut self, kind: &str, path: &CStr, call: impl FnOnce(&mut Self) -> c_int) -> c_int {
        match self.judge(kind, path) {
            Verdict::Pass => call(self),
            Verdict::Error(errno) => fail(errno),
            Verdict::Die(When::After) => {
                call(self);
                self.die()
            }
            Verdict::Die(_) => self.die(),
        }
    }

    fn die(&mut self) -> ! {
        if self.tracks() {
            self.lose();
        }
        unsafe { kill(getpid(), SIGKILL) };
        loop {
            std::thread::park();
        }
    }

    fn opened(&mut self, fd: c_int, path: &CStr, flags: c_int) {
        let open = Open { ino: inode_and_len(fd).0, path: path.to_owned(), append: flags & O_APPEND != 0 };
        self.open.insert(fd, open);
        if let Some(watched) = usize::try_from(fd).ok().and_then(|fd| WATCHED.get(fd)) {
            watched.store(true, Ordering::Release);
        }
    }

    /// Writes, and remembers the old content.
    fn write(&mut self, fd: c_int, bytes: &[u8], at: u64) -> isize {
        let open = &self.open[&fd];
        let (ino, path) = (open.ino, open.path.clone());
        let change = self.tracks().then(|| {
            let len = inode_and_len(fd).1;
            let there = len.saturating_sub(at).min(bytes.len() as u64);
            let mut old = vec![0; there as usize];
            // Files opened for writing only (journals, exports) are only appended to.
            let reader = real_open(&path, 0, 0);
            real_pread(reader, &mut old, at);
            real_close(reader);
            Change::Write { at, old, new: bytes.to_vec(), len }
        });
        let mut done = 0;
        while done < bytes.len() {
            // On a file opened with O_APPEND, pwrite appends whatever the offset is.
            let wrote = real_pwrite(fd, &bytes[done..], at + done as u64);
            if wrote <= 0 {
                return if done > 0 { done as isize } else { wrote };
            }
            done += wrote as usize;
        }
        if let Some(change) = change {
            let file = self.files.entry(ino).or_default();
            file.path = path;
            file.changes.push(change);
        }
        done as isize
    }

    fn judged_write(&mut self, fd: c_int, bytes: &[u8], at: u64) -> isize {
        let path = self.open[&fd].path.clone();
        match self.judge("write", &path) {
            Verdict::Pass => self.write(fd, bytes, at),
            Verdict::Error(errno) => fail(errno) as isize,
            Verdict::Die(when) => {
                let done = match when {
                    When::Before => 0,
                    When::Half => self.random(bytes.len() as u64) as usize,
                    When::After => bytes.len(),
                };
                self.write(fd, &bytes[..done], at);
                self.die()
            }
        }
    }

    fn truncate(&mut self, fd: c_int, to: u64) -> c_int {
        let (ino, from) = inode_and_len(fd);
        if self.tracks() {
            let path = self.open[&fd].path.clone();
            let mut tail = vec![0; from.saturating_sub(to) as usize];
            let reader = real_open(&path, 0, 0);
            real_pread(reader, &mut tail, to);
            real_close(reader);
            let file = self.files.entry(ino).or_default();
            file.path = path;
            file.changes.push(Change::Truncate { from, to, tail });
        }
        real_truncate(fd, to)
    }

    /// Makes a second name for a file that is about to lose its own.
    fn keep(&mut self, path: &CStr) -> Option<CString> {
        if !self.tracks() || unsafe { access(path.as_ptr(), 0) } != 0 {
            return None;
        }
        self.kept += 1;
        let kept = CString::new(format!("{}/{}-{}", self.shadow, unsafe { getpid() }, self.kept)).unwrap();
        if unsafe { link(path.as_ptr(), kept.as_ptr()) } != 0 {
            return None;
        }
        self.moved(path, &kept);
        Some(kept)
    }

    fn moved(&mut self, from: &CStr, to: &CStr) {
        let of_file = self.files.values_mut().map(|file| &mut file.path);
        for path in of_file.chain(self.open.values_mut().map(|open| &mut open.path)) {
            let rest = path.to_bytes().strip_prefix(from.to_bytes());
            if let Some(rest) = rest.filter(|rest| rest.is_empty() || rest[0] == b'/') {
                *path = CString::new([to.to_bytes(), rest].concat()).unwrap();
            }
        }
    }

    fn named(&mut self, dir: CString, name: Name) {
        if self.tracks() {
            self.names.push((dir, name));
        }
    }

    fn synced(&mut self, fd: c_int) -> c_int {
        let open = &self.open[&fd];
        self.files.remove(&open.ino);
        let dir = open.path.clone();
        self.names.retain(|(of, _)| *of != dir);
        0
    }
}
