//! Functions of libc, declared by hand, and the definitions that the layer replaces.

use std::{
    ffi::{CStr, CString, c_char, c_int, c_uint, c_void},
    fs::File,
    mem::ManuallyDrop,
    os::{fd::FromRawFd, unix::fs::MetadataExt},
};

pub const O_CREAT: c_int = 0o100;
pub const O_TRUNC: c_int = 0o1000;
pub const O_APPEND: c_int = 0o2000;
pub const O_RDWR: c_int = 2;
pub const SEEK_CUR: c_int = 1;
pub const SIGKILL: c_int = 9;
pub const PR_GET_NAME: c_int = 16;

unsafe extern "C" {
    pub fn dlsym(handle: *mut c_void, symbol: *const c_char) -> *mut c_void;
    pub fn kill(pid: c_int, signal: c_int) -> c_int;
    pub fn usleep(microseconds: c_uint) -> c_int;
    pub fn getpid() -> c_int;
    pub fn access(path: *const c_char, mode: c_int) -> c_int;
    pub fn link(from: *const c_char, to: *const c_char) -> c_int;
    pub fn lseek(fd: c_int, offset: i64, whence: c_int) -> i64;
    pub fn prctl(option: c_int, name: *mut c_char, a: usize, b: usize, c: usize) -> c_int;
    pub fn __errno_location() -> *mut c_int;
}

/// What `clock_gettime` fills in.
#[repr(C)]
pub struct Timespec {
    pub seconds: i64,
    pub nanoseconds: i64,
}

/// Returns the next definition of a function, which is libc's: `real!(c"write", fn(c_int) -> c_int)`.
#[macro_export]
macro_rules! real {
    ($name:expr, fn($($argument:ty),*) -> $result:ty) => {{
        static FOUND: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let mut found = FOUND.load(std::sync::atomic::Ordering::Relaxed);
        if found == 0 {
            // RTLD_NEXT
            found = $crate::libc::dlsym(-1isize as *mut std::ffi::c_void, $name.as_ptr()) as usize;
            FOUND.store(found, std::sync::atomic::Ordering::Relaxed);
        }
        std::mem::transmute::<usize, unsafe extern "C" fn($($argument),*) -> $result>(found)
    }};
}

pub fn real_open(path: &CStr, flags: c_int, mode: c_uint) -> c_int {
    unsafe { real!(c"open64", fn(*const c_char, c_int, c_uint) -> c_int)(path.as_ptr(), flags, mode) }
}
pub fn real_close(fd: c_int) -> c_int {
    unsafe { real!(c"close", fn(c_int) -> c_int)(fd) }
}
pub fn real_pwrite(fd: c_int, bytes: &[u8], at: u64) -> isize {
    unsafe {
        let call = real!(c"pwrite64", fn(c_int, *const c_void, usize, i64) -> isize);
        call(fd, bytes.as_ptr().cast(), bytes.len(), at as i64)
    }
}
pub fn real_pread(fd: c_int, bytes: &mut [u8], at: u64) -> isize {
    unsafe {
        let call = real!(c"pread64", fn(c_int, *mut c_void, usize, i64) -> isize);
        call(fd, bytes.as_mut_ptr().cast(), bytes.len(), at as i64)
    }
}
pub fn real_truncate(fd: c_int, len: u64) -> c_int {
    unsafe { real!(c"ftruncate64", fn(c_int, i64) -> c_int)(fd, len as i64) }
}
pub fn real_rename(from: &CStr, to: &CStr) -> c_int {
    unsafe { real!(c"rename", fn(*const c_char, *const c_char) -> c_int)(from.as_ptr(), to.as_ptr()) }
}
pub fn real_unlink(path: &CStr) -> c_int {
    unsafe { real!(c"unlink", fn(*const c_char) -> c_int)(path.as_ptr()) }
}

pub fn fail(errno: c_int) -> c_int {
    unsafe { *__errno_location() = errno };
    -1
}

pub fn inode_and_len(fd: c_int) -> (u64, u64) {
    let file = ManuallyDrop::new(unsafe { File::from_raw_fd(fd) });
    file.metadata().map_or((0, 0), |meta| (meta.ino(), meta.len()))
}

pub fn parent(path: &CStr) -> CString {
    let bytes = path.to_bytes();
    let end = bytes.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    CString::new(&bytes[..end]).unwrap()
}

pub fn thread_name() -> String {
    let mut name = [0u8; 17];
    unsafe { prctl(PR_GET_NAME, name.as_mut_ptr().cast(), 0, 0, 0) };
    CStr::from_bytes_until_nul(&name).map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
