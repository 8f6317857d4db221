//! The loss of data at a power cut.

use super::{Change, Disk, Name, libc::*};
use std::ffi::CString;

/// Size in bytes of the unit that a disk writes as a whole or not at all.
const SECTOR: u64 = 512;

impl Disk {
    /// Cuts the power: loses all, none or some of the data that is not durable, in whole writes or in sectors.
    pub fn lose(&mut self) {
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
            // The new size may become durable without the data, which reads as zeros.
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
