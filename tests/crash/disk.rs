//! A disk that fails on command: compiled by the test (`layer.rs`) to a shared library of its own and given to the real
//! binary by LD_PRELOAD. Not a module of the test. It stands between the process and libc, sees every call that changes
//! something below one directory, and at the n-th call of a kind
//! - **kills** the process, before, after or in the middle of the call;
//! - lets the **power** fail: undoes what no fsync has made lasting, then kills;
//! - or answers with an **error**, for some calls or for as long as a file is there.
//!
//! Why this is as good as faults below the file system, for what is tested: sled 0.34 and this crate change files by
//! write, pwrite, ftruncate, rename, unlink and creation only, and rely on fsync and fdatasync only. A power cut loses any
//! subset of the sectors written since the last fsync of their file, and any later part of the changes to names since the
//! last fsync of their directory (journaling file systems keep the order of such changes). That is what is drawn here, in
//! the strict reading: `sync_file_range`, which sled's flush uses, makes **nothing** lasting, for it writes neither sizes
//! nor the disk's cache. An fsync is not passed on: whether the machine's own disk keeps its word is not the question,
//! and 1,000 kills take a third of the time.
//!
//! What it does not show: changes by mmap, O_DIRECT or io_uring (nobody makes any here); calls that do not go through
//! libc (rustix: the rename of a new identity.key, which happens once and is followed by an fsync of its directory);
//! damage to metadata of the file system; and what a process that was killed before had not synced counts as synced once
//! the next one runs.
//!
//! Environment: `DISK_DIR` the directory; `DISK_SHADOW` one beside it, for names that may have to come back; `DISK_PLAN`
//! `on=<kinds>;path=<part>|<part>;thread=<prefix>;nth=<n>;when=before|after|half;do=kill|power|error:<errno>:<calls>`
//! (kinds: create, write, fsync, range, truncate, rename, unlink, read, and thread: one that takes the name `path`, and then
//! the end comes within 2 ms; 0 calls: without end); `DISK_ARMED` a file
//! without which nothing counts; `DISK_COUNT` a file that gets the number of matching calls; `DISK_SEED`; and `DISK_CLOCK`
//! seconds that the wall clock is ahead (or behind), which needs none of the others.

use std::{
    cell::Cell,
    collections::{BTreeMap, HashMap},
    ffi::{CStr, CString, c_char, c_int, c_uint, c_void},
    fs::File,
    mem::{ManuallyDrop, transmute},
    os::{fd::FromRawFd, unix::fs::MetadataExt},
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

const O_CREAT: c_int = 0o100;
const O_TRUNC: c_int = 0o1000;
const O_APPEND: c_int = 0o2000;
const O_RDWR: c_int = 2;
const SEEK_CUR: c_int = 1;
const SIGKILL: c_int = 9;
const PR_GET_NAME: c_int = 16;
const SECTOR: u64 = 512;
/// Descriptors above are not watched; the binary's files of a database are among the first hundred.
const FDS: usize = 65_536;

unsafe extern "C" {
    fn dlsym(handle: *mut c_void, symbol: *const c_char) -> *mut c_void;
    fn kill(pid: c_int, signal: c_int) -> c_int;
    fn usleep(microseconds: c_uint) -> c_int;
    fn getpid() -> c_int;
    fn access(path: *const c_char, mode: c_int) -> c_int;
    fn link(from: *const c_char, to: *const c_char) -> c_int;
    fn lseek(fd: c_int, offset: i64, whence: c_int) -> i64;
    fn prctl(option: c_int, name: *mut c_char, a: usize, b: usize, c: usize) -> c_int;
    fn __errno_location() -> *mut c_int;
}

/// What `clock_gettime` fills in.
#[repr(C)]
struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

/// The next definition of a function, libc's: `real!(c"write", fn(c_int) -> c_int)`.
macro_rules! real {
    ($name:expr, fn($($argument:ty),*) -> $result:ty) => {{
        static FOUND: AtomicUsize = AtomicUsize::new(0);
        let mut found = FOUND.load(Ordering::Relaxed);
        if found == 0 {
            // RTLD_NEXT
            found = dlsym(-1isize as *mut c_void, $name.as_ptr()) as usize;
            FOUND.store(found, Ordering::Relaxed);
        }
        transmute::<usize, unsafe extern "C" fn($($argument),*) -> $result>(found)
    }};
}

fn real_open(path: &CStr, flags: c_int, mode: c_uint) -> c_int {
    unsafe { real!(c"open64", fn(*const c_char, c_int, c_uint) -> c_int)(path.as_ptr(), flags, mode) }
}
fn real_close(fd: c_int) -> c_int {
    unsafe { real!(c"close", fn(c_int) -> c_int)(fd) }
}
fn real_pwrite(fd: c_int, bytes: &[u8], at: u64) -> isize {
    unsafe {
        let call = real!(c"pwrite64", fn(c_int, *const c_void, usize, i64) -> isize);
        call(fd, bytes.as_ptr().cast(), bytes.len(), at as i64)
    }
}
fn real_pread(fd: c_int, bytes: &mut [u8], at: u64) -> isize {
    unsafe {
        let call = real!(c"pread64", fn(c_int, *mut c_void, usize, i64) -> isize);
        call(fd, bytes.as_mut_ptr().cast(), bytes.len(), at as i64)
    }
}
fn real_truncate(fd: c_int, len: u64) -> c_int {
    unsafe { real!(c"ftruncate64", fn(c_int, i64) -> c_int)(fd, len as i64) }
}
fn real_rename(from: &CStr, to: &CStr) -> c_int {
    unsafe { real!(c"rename", fn(*const c_char, *const c_char) -> c_int)(from.as_ptr(), to.as_ptr()) }
}
fn real_unlink(path: &CStr) -> c_int {
    unsafe { real!(c"unlink", fn(*const c_char) -> c_int)(path.as_ptr()) }
}

fn fail(errno: c_int) -> c_int {
    unsafe { *__errno_location() = errno };
    -1
}

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
    /// errno, and for how many calls.
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

/// A change to a file that no fsync has made lasting.
enum Change {
    Write { at: u64, old: Vec<u8>, new: Vec<u8>, len: u64 },
    Truncate { from: u64, to: u64, tail: Vec<u8> },
}

/// A change to names, in order; each with the directory whose fsync makes it lasting.
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

/// What a call is to come to.
enum Verdict {
    Pass,
    Error(c_int),
    Die(When),
}

static DISK: OnceLock<Option<Mutex<Disk>>> = OnceLock::new();
static WATCHED: [AtomicBool; FDS] = [const { AtomicBool::new(false) }; FDS];

thread_local! {
    /// The layer's own calls pass.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

struct Held(MutexGuard<'static, Disk>);

impl Drop for Held {
    fn drop(&mut self) {
        INSIDE.with(|inside| inside.set(false));
    }
}

/// The layer, locked: calls that it watches happen one after the other. `None` for its own calls, and without a plan.
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

/// The same, if the descriptor is of a file below the directory.
fn disk_of(fd: c_int) -> Option<Held> {
    let watched = usize::try_from(fd).ok().and_then(|fd| WATCHED.get(fd));
    watched.filter(|watched| watched.load(Ordering::Acquire)).and_then(|_| disk())
}

fn inode_and_len(fd: c_int) -> (u64, u64) {
    let file = ManuallyDrop::new(unsafe { File::from_raw_fd(fd) });
    file.metadata().map_or((0, 0), |meta| (meta.ino(), meta.len()))
}

fn parent(path: &CStr) -> CString {
    let bytes = path.to_bytes();
    let end = bytes.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    CString::new(&bytes[..end]).unwrap()
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

    /// xorshift
    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % below.max(1)
    }

    /// The path below the directory.
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

    /// A call that is done whole or not at all.
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

    /// Writes, and remembers what was there.
    fn write(&mut self, fd: c_int, bytes: &[u8], at: u64) -> isize {
        let open = &self.open[&fd];
        let (ino, path) = (open.ino, open.path.clone());
        let change = self.tracks().then(|| {
            let len = inode_and_len(fd).1;
            let there = len.saturating_sub(at).min(bytes.len() as u64);
            let mut old = vec![0; there as usize];
            // What was opened for writing only (journals, exports) is only ever appended to.
            let reader = real_open(&path, 0, 0);
            real_pread(reader, &mut old, at);
            real_close(reader);
            Change::Write { at, old, new: bytes.to_vec(), len }
        });
        let mut done = 0;
        while done < bytes.len() {
            // On a file that is appended to it appends, whatever the offset.
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

    /// A second name for what is about to lose its own.
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

    /// The power fails: of what is not lasting all goes, or nothing, or some; whole writes, or sectors of them.
    fn lose(&mut self) {
        let style = self.random(4);
        for (_, file) in std::mem::take(&mut self.files) {
            let fd = real_open(&file.path, O_RDWR, 0);
            if fd < 0 {
                continue;
            }
            let longest = inode_and_len(fd).1;
            for change in file.changes.iter().rev() {
                match change {
                    Change::Write { at, old, len, .. } => {
                        real_pwrite(fd, old, *at);
                        if inode_and_len(fd).1 > *len {
                            real_truncate(fd, *len);
                        }
                    }
                    Change::Truncate { from, to, tail } => {
                        real_truncate(fd, *from);
                        real_pwrite(fd, tail, *to);
                    }
                }
            }
            for change in &file.changes {
                let kept = style == 1 || style >= 2 && self.random(2) == 0;
                match change {
                    Change::Write { at, new, .. } if style == 3 => {
                        let mut done = 0;
                        while done < new.len() {
                            let end = (SECTOR - (at + done as u64) % SECTOR) as usize + done;
                            let end = end.min(new.len());
                            if self.random(2) == 0 {
                                real_pwrite(fd, &new[done..end], at + done as u64);
                            }
                            done = end;
                        }
                    }
                    Change::Write { at, new, .. } if kept => drop(real_pwrite(fd, new, *at)),
                    Change::Truncate { to, .. } if kept => drop(real_truncate(fd, *to)),
                    _ => {}
                }
            }
            // The new size may last without the data: zeros.
            if style >= 2 && self.random(4) == 0 && inode_and_len(fd).1 < longest {
                real_truncate(fd, longest);
            }
            real_close(fd);
        }
        let names = std::mem::take(&mut self.names);
        let lasting = match style {
            0 => 0,
            1 => names.len(),
            _ => self.random(names.len() as u64 + 1) as usize,
        };
        for (_, name) in names.into_iter().skip(lasting).rev() {
            match name {
                Name::Created { path } => {
                    self.kept += 1;
                    let lost = format!("{}/lost-{}-{}", self.shadow, unsafe { getpid() }, self.kept);
                    real_rename(&path, &CString::new(lost).unwrap());
                }
                Name::Renamed { from, to, replaced } => {
                    real_rename(&to, &from);
                    if let Some(replaced) = replaced {
                        real_rename(&replaced, &to);
                    }
                }
                Name::Unlinked { path, kept } => drop(real_rename(&kept, &path)),
            }
        }
    }
}

fn thread_name() -> String {
    let mut name = [0u8; 17];
    unsafe { prctl(PR_GET_NAME, name.as_mut_ptr().cast(), 0, 0, 0) };
    CStr::from_bytes_until_nul(&name).map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

#[unsafe(no_mangle)]
unsafe extern "C" fn open64(path: *const c_char, mut flags: c_int, mode: c_uint) -> c_int {
    let name = unsafe { CStr::from_ptr(path) };
    let Some(mut disk) = disk() else { return real_open(name, flags, mode) };
    let disk = &mut *disk.0;
    let is_below = disk.below(name).is_some() || name.to_str() == Ok(&disk.dir);
    if !is_below {
        return real_open(name, flags, mode);
    }
    let exists = unsafe { access(path, 0) } == 0;
    let cut = flags & O_TRUNC != 0 && exists;
    if cut {
        flags &= !O_TRUNC;
    }
    let open = |disk: &mut Disk| {
        let fd = real_open(name, flags, mode);
        if fd >= 0 {
            disk.opened(fd, name, flags);
            if cut {
                disk.truncate(fd, 0);
            }
        }
        fd
    };
    if exists || flags & O_CREAT == 0 {
        return open(disk);
    }
    disk.whole("create", name, |disk| {
        let fd = open(disk);
        if fd >= 0 {
            disk.named(parent(name), Name::Created { path: name.to_owned() });
        }
        fd
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    unsafe { open64(path, flags, mode) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn close(fd: c_int) -> c_int {
    if let Some(mut disk) = disk_of(fd) {
        disk.0.open.remove(&fd);
        WATCHED[fd as usize].store(false, Ordering::Release);
        return real_close(fd);
    }
    real_close(fd)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn write(fd: c_int, bytes: *const c_void, len: usize) -> isize {
    let Some(mut disk) = disk_of(fd) else {
        return unsafe { real!(c"write", fn(c_int, *const c_void, usize) -> isize)(fd, bytes, len) };
    };
    let bytes = unsafe { std::slice::from_raw_parts(bytes.cast(), len) };
    let append = disk.0.open[&fd].append;
    let at = if append { inode_and_len(fd).1 } else { (unsafe { lseek(fd, 0, SEEK_CUR) }) as u64 };
    let wrote = disk.0.judged_write(fd, bytes, at);
    if wrote > 0 && !append {
        unsafe { lseek(fd, wrote as i64, SEEK_CUR) };
    }
    wrote
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite64(fd: c_int, bytes: *const c_void, len: usize, at: i64) -> isize {
    let bytes = unsafe { std::slice::from_raw_parts(bytes.cast(), len) };
    match disk_of(fd) {
        Some(mut disk) => disk.0.judged_write(fd, bytes, at as u64),
        None => real_pwrite(fd, bytes, at as u64),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pread64(fd: c_int, bytes: *mut c_void, len: usize, at: i64) -> isize {
    let bytes = unsafe { std::slice::from_raw_parts_mut(bytes.cast(), len) };
    if let Some(mut disk) = disk_of(fd) {
        let path = disk.0.open[&fd].path.clone();
        match disk.0.judge("read", &path) {
            Verdict::Pass => {}
            Verdict::Error(errno) => return fail(errno) as isize,
            Verdict::Die(_) => disk.0.die(),
        }
    }
    real_pread(fd, bytes, at as u64)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fsync(fd: c_int) -> c_int {
    let Some(mut disk) = disk_of(fd) else { return unsafe { real!(c"fsync", fn(c_int) -> c_int)(fd) } };
    let path = disk.0.open[&fd].path.clone();
    disk.0.whole("fsync", &path, |disk| disk.synced(fd))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdatasync(fd: c_int) -> c_int {
    let Some(mut disk) = disk_of(fd) else { return unsafe { real!(c"fdatasync", fn(c_int) -> c_int)(fd) } };
    let path = disk.0.open[&fd].path.clone();
    disk.0.whole("fsync", &path, |disk| disk.synced(fd))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sync_file_range(fd: c_int, at: i64, len: i64, flags: c_uint) -> c_int {
    let Some(mut disk) = disk_of(fd) else {
        return unsafe { real!(c"sync_file_range", fn(c_int, i64, i64, c_uint) -> c_int)(fd, at, len, flags) };
    };
    let path = disk.0.open[&fd].path.clone();
    disk.0.whole("range", &path, |_| 0)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn ftruncate64(fd: c_int, len: i64) -> c_int {
    let Some(mut disk) = disk_of(fd) else { return real_truncate(fd, len as u64) };
    let path = disk.0.open[&fd].path.clone();
    disk.0.whole("truncate", &path, |disk| disk.truncate(fd, len as u64))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    let (from, to) = unsafe { (CStr::from_ptr(from), CStr::from_ptr(to)) };
    let Some(mut disk) = disk().filter(|disk| disk.0.below(to).is_some()) else { return real_rename(from, to) };
    disk.0.whole("rename", to, |disk| {
        let replaced = disk.keep(to);
        let done = real_rename(from, to);
        if done == 0 {
            disk.moved(from, to);
            disk.named(parent(to), Name::Renamed { from: from.to_owned(), to: to.to_owned(), replaced });
        }
        done
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn unlink(path: *const c_char) -> c_int {
    let path = unsafe { CStr::from_ptr(path) };
    let Some(mut disk) = disk().filter(|disk| disk.0.below(path).is_some()) else { return real_unlink(path) };
    disk.0.whole("unlink", path, |disk| {
        let kept = disk.keep(path);
        let done = real_unlink(path);
        if let Some(kept) = kept.filter(|_| done == 0) {
            disk.named(parent(path), Name::Unlinked { path: path.to_owned(), kept });
        }
        done
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mkdir(path: *const c_char, mode: c_uint) -> c_int {
    let name = unsafe { CStr::from_ptr(path) };
    let call = |name: &CStr| unsafe { real!(c"mkdir", fn(*const c_char, c_uint) -> c_int)(name.as_ptr(), mode) };
    let Some(mut disk) = disk().filter(|disk| disk.0.below(name).is_some()) else { return call(name) };
    disk.0.whole("create", name, |disk| {
        let done = call(name);
        if done == 0 {
            disk.named(parent(name), Name::Created { path: name.to_owned() });
        }
        done
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: c_int, time: *mut Timespec) -> c_int {
    static AHEAD: OnceLock<i64> = OnceLock::new();
    let done = unsafe { real!(c"clock_gettime", fn(c_int, *mut Timespec) -> c_int)(clock, time) };
    if clock == 0 && done == 0 {
        let ahead = || std::env::var("DISK_CLOCK").ok().and_then(|ahead| ahead.parse().ok()).unwrap_or(0);
        unsafe { (*time).seconds += AHEAD.get_or_init(ahead) };
    }
    done
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pthread_setname_np(thread: usize, name: *const c_char) -> c_int {
    if let Some(mut disk) = disk() {
        let text = unsafe { CStr::from_ptr(name) }.to_string_lossy();
        let path = CString::new(format!("{}/{text}", disk.0.dir)).unwrap();
        if let Verdict::Die(_) = disk.0.judge("thread", &path) {
            let after = disk.0.random(2_000) as c_uint;
            std::thread::spawn(move || {
                unsafe { usleep(after) };
                let disk = DISK.get().and_then(Option::as_ref).unwrap();
                INSIDE.with(|inside| inside.set(true));
                disk.lock().unwrap_or_else(PoisonError::into_inner).die()
            });
        }
    }
    unsafe { real!(c"pthread_setname_np", fn(usize, *const c_char) -> c_int)(thread, name) }
}
