//! The functions of libc that this layer replaces in the process.

use super::{DISK, Disk, INSIDE, Name, Verdict, WATCHED, disk, disk_of, libc::*};
use std::{
    ffi::{CStr, CString, c_char, c_int, c_uint, c_void},
    sync::{OnceLock, PoisonError, atomic::Ordering},
};

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
